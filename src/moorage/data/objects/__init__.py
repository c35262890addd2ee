"""Objects in buckets, through obstore: one class for every kind of store, one for its errors.

    bucket = open_bucket(access, "my-bucket")      # objects/bucket.py
    for found in bucket.list("checkpoints"): ...   # Found(key, size, modified, etag)
    bucket.put("a/b", b"...")

Only obstore's blocking calls are used, from threads of our own. Its asynchronous ones resolve
Python futures from threads of its runtime, which end the whole process with SIGABRT where such a
thread still does so while the interpreter finalizes: measured here, 3 of 25 uploads that had been
complete died so at the end of the process, none of 25 by the blocking calls. Those take no memory
beyond what `bucket.py` bounds either (`put_async` with 32 parts of 64 MiB held 1.1 GiB).
"""
