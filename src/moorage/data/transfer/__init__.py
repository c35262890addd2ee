"""Files between a local directory and buckets, and between buckets.

    plan = compare(source, target, options)        # compare.py: what differs; changes nothing
    report = carry_out(plan, tell=show)            # engine.py: moves it, in parallel

A place (`places.py`) is a local path or a path in a bucket. Whoever is interrupted begins again
and moves what is missing: what arrived is known by its size and time, and a large object goes on
within itself when it is fetched; when it is sent, it begins anew.
"""
