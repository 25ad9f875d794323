"""Profiles: what gates need to know about data, measured on all rows without holding the rows.

A :class:`~airlock.profiles.source.Source` is a Parquet file, a CSV file, a SQL table or a frame. From it
come

- a :class:`~airlock.profiles.profile.TableProfile`: counts, moments, categories and a fine histogram of
  each column. Profiles are small, and two of them merge into the profile of both data sets together;
- a :func:`~airlock.profiles.compare.compare`: how far two sources lie apart, column by column, as PSI,
  Jensen-Shannon, Kolmogorov-Smirnov, Wasserstein and chi-square, equal to what Evidently and SciPy say.

Nothing here judges: limits and verdicts are in ``airlock.gates``.
"""
