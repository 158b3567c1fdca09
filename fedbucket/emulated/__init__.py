"""`fedbucket run --emulators`: one federation across two clouds and an organisation's own hardware, on this machine.

The buckets are emulators behind the clouds' own SDKs, the functions are the packages that a cloud would be given, each
in a process of its own, and events reach them as the clouds deliver them.
"""
