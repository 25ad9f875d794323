"""Signed notes, checkpoints, rotations and proofs: what is accepted, and everything that is not."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from airlock.adapters.audit.keys import SigningKey, rotation_statement
from airlock.core.merkle import complete_root, root_of
from airlock.proof import (
    Checkpoint,
    InclusionProof,
    KeyChange,
    Note,
    ProofError,
    PublicKey,
    Rotation,
    cosigned,
    hash_leaf,
    hash_node,
    key_for,
    key_periods,
    sign_note,
)

ORIGIN = "airlock/test/0011223344556677"


def fixed_key(number: int, name: str = ORIGIN) -> SigningKey:
    """The same key in each process, because names of tests follow from it."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    return SigningKey(PublicKey(name, private.public_key().public_bytes_raw()), private)


KEY, OTHER = fixed_key(1), fixed_key(2)
ROOT = hash_leaf(b"an entry")
SECONDS = 1_767_225_600
DASH = "\N{EM DASH}"


def checkpoint(size: int = 1, root: bytes = ROOT, key: SigningKey = KEY) -> str:
    return key.sign_checkpoint(size, root, seconds=SECONDS)


# Public keys


def test_a_public_key_is_read_back_from_its_line() -> None:
    assert PublicKey.parse(str(KEY.public)) == KEY.public
    assert PublicKey.parse(f" {KEY.public}\n") == KEY.public
    assert str(KEY.public).split("+")[:2] == [ORIGIN, KEY.public.id]


def line(data: bytes, name: str = ORIGIN, key_id: str = KEY.public.id) -> str:
    return f"{name}+{key_id}+{base64.b64encode(data).decode()}"


RAW = KEY.public.raw
NO_KEYS = [
    "",
    "+",
    "++",
    "name",
    "name+00000000+",
    "name+00000000+AAAA",
    line(b"\x01" + RAW, name="another"),
    line(b"\x01" + RAW, name=""),
    line(b"\x01" + RAW, name="two words"),
    line(b"\x01" + RAW, key_id="00000000"),
    line(b"\x01" + RAW, key_id=KEY.public.id + "0"),
    line(b"\x01" + RAW, key_id=""),
    line(b"\x04" + RAW),
    line(b"\x01" + RAW[:-1]),
    line(b"\x01" + RAW + b"x"),
    line(RAW),
    f"{KEY.public} {KEY.public}",
    f"{KEY.public}\n{OTHER.public}",
    f"PRIVATE+KEY+{KEY.public}",
]


@pytest.mark.parametrize("text", NO_KEYS, ids=range(len(NO_KEYS)))
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(ProofError):
        PublicKey.parse(text)


def test_a_published_note_of_the_format_s_authors_verifies() -> None:
    """The example of golang.org/x/mod/sumdb/note, from which the format comes."""
    key = PublicKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
    )
    signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    note = Note.parse(f"{text}\n{DASH} PeterNeumann {signature}\n")
    assert note.text == text
    assert note.signed_by(key)
    assert note.signed_at(key) is None
    assert not Note.parse(f"{text.upper()}\n{DASH} PeterNeumann {signature}\n").signed_by(key)


# Notes


TEXTS = st.lists(
    st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), max_size=20), min_size=1, max_size=5
).map(lambda lines: "\n".join(lines) + "\n")


@settings(max_examples=60, deadline=None)
@given(text=TEXTS.filter(lambda text: text.strip("\n")), seconds=st.integers(0, 2**63))
def test_a_signed_note_is_read_back(text: str, seconds: int) -> None:
    note = Note.parse(KEY.sign(text, seconds=seconds))
    assert note.text == text
    assert note.signed_by(KEY.public)
    assert note.signed_at(KEY.public) == seconds
    assert not note.signed_by(OTHER.public)
    assert note.signed_at(OTHER.public) is None


@pytest.mark.requirement("E-2")
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_changes_what_is_accepted(data: Any) -> None:
    note = checkpoint(7).encode()
    at, bit = data.draw(st.integers(0, len(note) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(note)
    changed[at] ^= 1 << bit
    try:
        parsed = Note.parse(changed.decode())
    except (UnicodeDecodeError, ProofError):
        return
    in_text = at < note.index(b"\n\n") + 1
    assert not (in_text and (parsed.signed_by(KEY.public) or parsed.signed_at(KEY.public) is not None))
    if parsed.signed_by(KEY.public):
        assert parsed.text == Note.parse(note.decode()).text
    assert parsed.signed_at(KEY.public) in (None, SECONDS)


def test_every_character_of_the_text_is_signed() -> None:
    note = checkpoint(7)
    end = note.index("\n\n")
    for at in range(end):
        changed = note[:at] + ("x" if note[at] != "x" else "y") + note[at + 1 :]
        assert not Note.parse(changed).signed_by(KEY.public), at
        shorter = note[:at] + note[at + 1 :]
        assert not Note.parse(shorter).signed_by(KEY.public), at


def test_a_signature_counts_only_under_its_own_name_and_id() -> None:
    note = checkpoint()
    renamed = note.replace(f"{DASH} {ORIGIN}", f"{DASH} another")
    assert not Note.parse(renamed).signed_by(KEY.public)
    assert not Note.parse(renamed).signed_by(PublicKey("another", KEY.public.raw))
    text = Note.parse(note).text
    for kind in (0, 2, 4, 5, 255):
        data = KEY.public.id_bytes(kind) + KEY._private.sign(text.encode())
        odd = f"{text}\n{DASH} {ORIGIN} {base64.b64encode(data).decode()}\n"
        assert not Note.parse(odd).signed_by(KEY.public)


def test_the_time_is_signed_too_and_a_note_signature_is_none() -> None:
    text = Checkpoint.text(ORIGIN, 1, ROOT)
    line = f"{text}\n{DASH} {ORIGIN} "
    plain, dated = KEY._private.sign(text.encode()), KEY._private.sign(cosigned(SECONDS, text))
    for seconds, signature, when in (
        (SECONDS, dated, SECONDS),
        (SECONDS + 1, dated, None),
        (SECONDS, plain, None),
        (SECONDS, dated[:-1], None),
        (SECONDS, b"", None),
    ):
        data = KEY.public.id_bytes(4) + struct.pack(">Q", seconds) + signature
        note = Note.parse(line + base64.b64encode(data).decode() + "\n")
        assert note.signed_at(KEY.public) == when
        assert not note.signed_by(KEY.public), "a cosignature is no signature of the log"


def test_signatures_of_strangers_are_ignored_and_one_right_line_is_enough() -> None:
    note = checkpoint()
    stranger = Note.parse(checkpoint(key=fixed_key(3, "stranger")))
    lines = [
        f"{DASH} {name} {base64.b64encode(key_id + data).decode()}\n"
        for name, key_id, data in stranger.signatures
    ]
    wrong = base64.b64encode(KEY.public.id_bytes(1) + bytes(64)).decode()
    for more in (*lines, f"{DASH} {ORIGIN} {wrong}\n"):
        head, tail = note.rsplit("\n\n", 1)
        for together in (f"{head}\n\n{more}{tail}", f"{head}\n\n{tail}{more}"):
            assert Note.parse(together).signed_by(KEY.public)
            assert Note.parse(together).signed_at(KEY.public) == SECONDS


NOTE = checkpoint()
SIGNATURE = NOTE[NOTE.rindex(DASH) :]


NO_NOTES = [
    "",
    "\n",
    "\n\n",
    "text\n",
    "text\n\n",
    NOTE[:-1],
    NOTE + "\n",
    NOTE + "text\n",
    NOTE + "\n\n",
    NOTE.replace("\n\n", "\n"),
    NOTE.replace("\n", "\r\n"),
    NOTE.replace(DASH, "-"),
    NOTE.replace(DASH, "\N{EN DASH}"),
    NOTE.replace(f"{DASH} ", f"{DASH}  "),
    NOTE.replace(f"{DASH} ", DASH),
    NOTE.replace(f"{DASH} {ORIGIN}", f"{DASH} "),
    NOTE.replace("\n\n", f"\n\n{DASH} name AAAA\n"),  # a key id, and no signature
    NOTE.replace("\n\n", f"\n\n{DASH} name AAAAAA=\n"),
    NOTE.replace("\n\n", f"\n\n{DASH} name !!!!!!!!\n"),
    NOTE.replace("\n\n", f"\n\n{DASH} na+me AAAAAAAA\n"),
    NOTE.replace("\n\n", f"\n\n{DASH} name AAAAAAAA extra\n"),
    NOTE.replace(ORIGIN, "a\0b"),
    NOTE.replace(ORIGIN, "a\x1b[2Jb"),
    NOTE.replace(ORIGIN, "a\tb"),
    NOTE.replace(ORIGIN, "a\ud800b"),
    NOTE.replace(ORIGIN, "a\u2028b"),
    "\n\n" + SIGNATURE,
    "\ufeff" * 3,
    DASH * 10_000,
]


@pytest.mark.parametrize("note", NO_NOTES, ids=range(len(NO_NOTES)))
def test_what_is_no_signed_note_is_refused(note: str) -> None:
    with pytest.raises(ProofError):
        Note.parse(note)


# Checkpoints


@settings(max_examples=50, deadline=None)
@given(size=st.integers(0, 2**63 - 1), root=st.binary(min_size=32, max_size=32))
def test_a_checkpoint_is_read_back(size: int, root: bytes) -> None:
    read = Checkpoint.parse(checkpoint(size, root))
    assert (read.origin, read.size, read.root) == (ORIGIN, size, root)
    assert read.note.signed_by(KEY.public)


def test_a_checkpoint_may_have_lines_that_we_do_not_know() -> None:
    text = Checkpoint.text(ORIGIN, 5, ROOT) + "an extension of another log\n"
    assert Checkpoint.parse(KEY.sign(text, seconds=1)).size == 5


_ENCODED = base64.b64encode(ROOT).decode()


NO_CHECKPOINTS = [
    "one line\n",
    f"{ORIGIN}\n1\n",
    f"\n1\n{_ENCODED}\n",
    f"{ORIGIN}\n01\n{_ENCODED}\n",
    f"{ORIGIN}\n-1\n{_ENCODED}\n",
    f"{ORIGIN}\n+1\n{_ENCODED}\n",
    f"{ORIGIN}\n 1\n{_ENCODED}\n",
    f"{ORIGIN}\n1e3\n{_ENCODED}\n",
    f"{ORIGIN}\n1_000\n{_ENCODED}\n",
    f"{ORIGIN}\n\N{FULLWIDTH DIGIT ONE}\n{_ENCODED}\n",
    f"{ORIGIN}\n{10**19}\n{_ENCODED}\n",
    f"{ORIGIN}\n\n{_ENCODED}\n",
    f"{ORIGIN}\n1\n\n",
    f"{ORIGIN}\n1\n{_ENCODED[:-4]}\n",
    f"{ORIGIN}\n1\n{_ENCODED}AAAA\n",
    f"{ORIGIN}\n1\n {_ENCODED}\n",
    f"{ORIGIN}\n1\n{ROOT.hex()}\n",
]


@pytest.mark.parametrize("text", NO_CHECKPOINTS, ids=range(len(NO_CHECKPOINTS)))
def test_what_is_no_checkpoint_is_refused_though_it_is_signed(text: str) -> None:
    note = sign_note(text, KEY.public, KEY._private.sign, seconds=1)
    with pytest.raises(ProofError):
        Checkpoint.parse(note)


# Rotations


def test_a_rotation_is_read_back_and_must_be_signed_by_the_old_key() -> None:
    statement = rotation_statement(KEY, OTHER.public, seconds=SECONDS)
    assert Rotation.parse(statement) == Rotation(KEY.public, OTHER.public)
    text = Rotation.text(KEY.public, OTHER.public)
    for note in (
        OTHER.sign(text, seconds=1),  # the new key vouches for itself
        KEY.sign(text + "more\n", seconds=1),
        KEY.sign(text.replace("v1", "v2"), seconds=1),
        KEY.sign(f"{Rotation.HEADER}\n{KEY.public}\n", seconds=1),
        KEY.sign(f"{Rotation.HEADER}\n{KEY.public}\nno key\n", seconds=1),
        statement.replace(str(OTHER.public), str(KEY.public)),
        checkpoint(),
        text,
        "None",
    ):
        with pytest.raises(ProofError):
            Rotation.parse(note)


def chain(*sizes: int) -> tuple[list[PublicKey], list[KeyChange]]:
    keys = [SigningKey.generate(ORIGIN).public for _ in range(len(sizes) + 1)]
    changes = [
        KeyChange(size, Rotation(old, new)) for size, old, new in zip(sizes, keys, keys[1:], strict=False)
    ]
    return keys, changes


@pytest.mark.requirement("E-2")
@pytest.mark.parametrize("pinned", range(3))
def test_whichever_key_is_pinned_each_size_has_its_key(pinned: int) -> None:
    keys, changes = chain(5, 9)
    unrelated = chain(3)[1]
    for order in (changes, changes[::-1], [*unrelated, *changes], [*changes, *unrelated]):
        periods = key_periods(keys[pinned], order)
        assert periods == [(0, keys[0]), (5, keys[1]), (9, keys[2])]
        assert [key_for(periods, size) for size in (0, 1, 5, 6, 9, 10, 10**9)] == [
            keys[0], keys[0], keys[0], keys[1], keys[1], keys[2], keys[2],
        ]  # fmt: skip


def test_a_pinned_key_without_changes_signs_everything() -> None:
    periods = key_periods(KEY.public, chain(1, 2)[1])
    assert periods == [(0, KEY.public)]
    assert key_for(periods, 10**9) == KEY.public


def test_rotations_in_a_circle_come_to_an_end() -> None:
    there = Rotation(KEY.public, OTHER.public)
    back = Rotation(OTHER.public, KEY.public)
    periods = key_periods(KEY.public, [KeyChange(3, there), KeyChange(6, back)])
    assert len(periods) < 10
    assert {key for _, key in periods} == {KEY.public, OTHER.public}


# Inclusion proofs

ENTRIES = [f"entry {number}".encode() for number in range(5)]
HASHES = [hash_leaf(entry) for entry in ENTRIES]


def proof_text() -> str:
    """That entry 2 is among five."""
    hashes = (HASHES[3], hash_node(HASHES[0], HASHES[1]), HASHES[4])
    note = checkpoint(5, root_of(HASHES))
    return str(InclusionProof(2, hashes, Checkpoint.parse(note), note))


@pytest.mark.requirement("E-2")
def test_a_proof_is_read_back_and_proves_its_entry_alone() -> None:
    text = proof_text()
    assert text.startswith("c2sp.org/tlog-proof@v1\nindex 2\n")
    proof = InclusionProof.parse(text)
    assert str(proof) == text
    assert proof.note == checkpoint(5, root_of(HASHES))
    assert proof.checkpoint.note.signed_by(KEY.public)
    proof.verify(ENTRIES[2])
    for data in (ENTRIES[0], ENTRIES[3], b"", HASHES[2]):
        with pytest.raises(ProofError, match="is not in the tree"):
            proof.verify(data)


def test_a_proof_in_a_log_of_one_entry_has_no_hashes() -> None:
    note = checkpoint(1, HASHES[0])
    text = str(InclusionProof(0, (), Checkpoint.parse(note), note))
    proof = InclusionProof.parse(text)
    assert (str(proof), proof.hashes) == (text, ())
    proof.verify(ENTRIES[0])


LINE = base64.b64encode(HASHES[3]).decode()


CHANGES = [
    ("c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v2"),
    ("c2sp.org/tlog-proof@v1\n", ""),
    ("c2sp.org/tlog-proof@v1\n", "c2sp.org/tlog-proof@v1\n\n"),
    ("index 2", "index 3"),
    ("index 2", "index 7"),
    ("index 2", "index 02"),
    ("index 2", "index -2"),
    ("index 2", "index 2 "),
    ("index 2", f"index {10**19}"),
    ("index 2", "index \N{ARABIC-INDIC DIGIT TWO}"),
    ("index 2", "Index 2"),
    ("index 2", "2"),
    ("index 2\n", ""),
    (f"{LINE}\n", ""),
    (f"{LINE}\n", f"{LINE}\n{LINE}\n"),
    (f"{LINE}\n", f"{LINE}\n" * 70),
    (f"{LINE}\n", f"{LINE[:-4]}\n"),
    (f"{LINE}\n", "\n"),
    (f"{LINE}\n", "not base64\n"),
    (f"{LINE}\n", f"{LINE} \n"),
    ("\n\n", "\n"),
    ("\n5\n", "\n6\n"),
    ("\n5\n", "\n2\n"),
    ("\n", "\r\n"),
]


@pytest.mark.parametrize(("old", "new"), CHANGES, ids=range(len(CHANGES)))
def test_a_proof_that_was_changed_proves_nothing(old: str, new: str) -> None:
    text = proof_text()
    assert old in text
    changed = text.replace(old, new)
    try:
        proof = InclusionProof.parse(changed)
        proof.verify(ENTRIES[2])
    except ProofError:
        return
    # What the tree alone cannot tell, the signature does.
    assert not proof.checkpoint.note.signed_by(KEY.public)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_of_a_proof_is_believed(data: Any) -> None:
    text = proof_text().encode()
    changed = bytearray(text)
    changed[data.draw(st.integers(0, len(text) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        proof = InclusionProof.parse(changed.decode())
        proof.verify(ENTRIES[2])
    except (UnicodeDecodeError, ProofError):
        return
    if proof.checkpoint.note.signed_by(KEY.public):
        # Base64 has spare bits, and the second signature is of no use here; what is claimed is the same.
        honest = InclusionProof.parse(text.decode())
        assert (proof.index, proof.hashes) == (honest.index, honest.hashes)
        assert proof.checkpoint.note.text == honest.checkpoint.note.text


def test_an_inner_node_cannot_pass_for_an_entry() -> None:
    """Leaves and nodes are hashed apart, or a node could be shown as a short log's entry."""
    node = HASHES[0] + HASHES[1]
    note = checkpoint(1, complete_root(HASHES[:2]))
    proof = InclusionProof(0, (), Checkpoint.parse(note), note)
    with pytest.raises(ProofError):
        proof.verify(node)
    with pytest.raises(ProofError):
        proof.verify(b"\x01" + node)
