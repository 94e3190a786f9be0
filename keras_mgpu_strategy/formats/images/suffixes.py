"""Suffixes of image files, as patterns for names in lower case."""

import re

SUFFIXES = (
    *(".apng", ".bmp", ".gif", ".jfi", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg"),
    *(".pjp", ".pjpeg", ".png", ".webp"),
)
"""Of files that are decoded, by their content."""

OTHERS = (
    r"\.(arw|avifs?|cr[23]|cur|dcm|dcx|dds|dib|dng|emf|eps|exr|fits|flif|hdr|hei[cf]s?|"
    r"hif|icns|ico|ief|iff|j2[ck]|jls|jng|jp2|jp[cfmx]|jxl|jxr|mng|mpo|nef|orf|p[abgnp]m|"
    r"pcx|pef|pfm|ps[bd]|qoi|raf|ras|rgba?|rw2|sgi|srw|svgz?|tga|tiff?|wbmp|wdp|wmf|xbm|"
    r"xcf|xpm|xwd)\Z"
)
"""Of images that cannot be decoded; silently leaving them out would be wrong."""

PATTERN = rf"({'|'.join(map(re.escape, SUFFIXES))})\Z|{OTHERS}"
"""Of all files that look like images."""
