"""The characters that make an address or number next to them a part of a longer word."""

# For a pattern's brackets: ASCII digits and letters and accented Latin letters. Letters of a script without spaces are
# left out: next to one of them an address or number stands alone.
LATIN = r"0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
