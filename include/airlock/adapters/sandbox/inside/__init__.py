"""What runs inside the sandbox, beside untrusted models. Nothing here imports anything of Airlock."""
