"""Who is in which part: from a store and a specification to three sets of samples that keep a promise.

Enters: a store's session columns and labels, a `SplitSpec`.  Leaves: a :class:`Split`, verified, or an `InputError`.
May import the specification, the schema and errors; it never sees a method.  No packet's bytes decide who is where:
`connections` alone reads some, of sessions that are divided already, to count what a proof by 5-tuples cannot see.

`filters` says which sessions are left out, `sampling` which packets make a sample, `groups` what stays together,
`assignment` (with its compiled `assignment_kernel`) who goes where, `clocks` where years lie between classes, `checks`
what is promised, `split_file` how it is written down, `split` all of it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
