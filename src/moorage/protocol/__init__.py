"""What moorage's processes say to each other; `VERSION` rises with every incompatible change."""

VERSION = 5
