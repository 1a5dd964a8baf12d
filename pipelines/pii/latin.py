"""The characters that make an address or number next to them a part of a longer word."""

# ASCII digits and letters and accented Latin letters, for use inside a pattern's brackets. Letters of scripts without
# spaces are left out, because an address or number may directly follow one of them.
LATIN = r"0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
