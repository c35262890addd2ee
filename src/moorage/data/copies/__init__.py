"""Mode COPY of buckets on a node.

shelf         what is asked of a bucket: list, fetch, put
listing       which object becomes which file, and which cannot
generations   the node's cache: one immutable tree for each content of a bucket
tree          how such a tree is made of files
overlay       a writable view of it, or a private copy
changes       what a job made of it
syncback      changes on their way into the bucket
mode          all this as a `Mode` of `data.buckets`
"""
