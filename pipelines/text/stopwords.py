"""The most frequent function words of each language, for Gopher's rule that running text has at least two of them.

The English list is Gopher's own. The other lists have articles, prepositions, conjunctions, pronouns and forms of "to
be" that occur in almost every paragraph. Lists of languages written without spaces have characters, because the rules
count characters as words there.
"""

_LISTS = {
    "en": "the be to of and that have with",
    "de": "der die das und ist nicht zu den mit von ein eine auf für dem im es sich auch an als",
    "fr": "le la les de des et est un une que qui dans pour en du pas sur au avec il ce ne",
    "es": "el la los las de que y en un una es por con para del no se al lo su como más",
    "it": "il la di che e è un una per in con del della non si le i da al sono come anche",
    "pt": "o a os as de que e do da em um uma para com não é por no na se mais dos ao",
    "nl": "de het een en van is dat in op te met voor niet zijn aan er die ook als bij om",
    "pl": "w i na z się nie do to że jest o jak za od po dla przez ale co tym oraz są",
    "ru": "и в не на что с по как это к из у за от о для но то его а так же все был",
    "uk": "і в не на що з та до як це за у від про для але його й або також які був є",
    "bg": "и на в да се за от е не с по че са като до си ще но при които",
    "cs": "a v na se je že s z do o i to jako k pro ale by po který jsou byl za",
    "sk": "a v na sa je že s z do o aj to ako k pre ale by po ktorý sú bol za",
    "sl": "in je v na se da za so ne z ki pa s tudi po kot bi ali iz bil",
    "hr": "i je u na se da su za ne od s a što kao o koji će iz bi ili",
    "sr": "и је у на се да су за не од с а што као о који ће из би или i je u na se da su za ne od što kao koji",
    "sv": "och i att det som en på är av för med den till inte om ett har de jag var",
    "da": "og i at det er en til på som for med den af ikke de har et jeg var om",
    "no": "og i det er på en som til for med av at den ikke har de et om jeg var",
    "nn": "og i det er på ein som til for med av at den ikkje har dei eit om eg var",
    "fi": "ja on ei se että hän oli ovat mutta kun joka myös niin kuin tai jos sen mitä ole",
    "et": "ja on ei see et ta oli kui mis ka aga ning või oma nii siis kes seda olid",
    "lv": "un ir ar no uz par ka kas tas bet arī kā lai pie pēc vai ne tika",
    "lt": "ir yra kad su iš į tai bet kaip ar jo buvo už nuo apie per po taip jau tik",
    "hu": "a az és hogy nem is egy van ez volt meg de csak már el mint még vagy ki",
    "ro": "și în de la a cu pe nu că o un este din să pentru care mai sunt ce au",
    "el": "και το να η ο της του την τα με που για είναι από στο δεν τον σε οι θα στην",
    "tr": "ve bir bu da de için ile çok daha ne var ama olarak gibi en o kadar sonra olan değil",
    "ca": "el la els les de que i en un una és per amb del no es al com més va",
    "gl": "o a os as de que e do da en un unha para con non é por no na se máis",
    "eu": "eta da ez bat ere dira du izan zen egin hau baina dute den bere beste",
    "ar": "في من على أن إلى التي هذا الذي عن مع ما هذه كان لا بين ذلك كل بعد قد أو",
    "fa": "و در به از که این را با است برای آن یک تا هم بر خود می شده ما اما",
    "he": "של את על לא זה הוא עם כי גם אני היא כל או אבל היה יש אם מה אל יותר",
    "ur": "کے میں کی ہے اور سے کا کو اس نے پر یہ کہ ہیں بھی تھا کر ایک جو نہیں",
    "hi": "के में की है और से का को इस ने पर यह कि हैं भी था कर एक जो नहीं",
    "bn": "ও এবং এই করে থেকে জন্য না একটি তার হয় যে এ সঙ্গে করা কিন্তু তিনি হয়ে আর",
    "id": "dan yang di dengan untuk dari ini itu tidak dalam pada adalah akan ke juga oleh ada karena atau",
    "ms": "dan yang di dengan untuk dari ini itu tidak dalam pada adalah akan ke juga oleh ada kerana atau",
    "vi": "và của là có cho các được trong một không với người đã những này khi để từ đến",
    "ko": "이 그 수 것 등 및 또 더 있는 있다 하는 한 위해 대한 그리고 있습니다 것이다 때문에 하지만 통해",
    "zh": "的 是 在 了 不 和 有 我 他 这 這 为 為 一 人 也 就 与 與 以",
    "yue": "嘅 係 喺 唔 咗 啲 佢 有 在 的 是 同 都 一",
    "ja": "の に は を が で と た て も な い し る",
}

STOP_WORDS: dict[str, frozenset[str]] = {language: frozenset(words.split()) for language, words in _LISTS.items()}

# BLOOM's rule limits the share of function words in running text, so its lists must be complete.
_ENGLISH = """
a about above after again against all also although always am among an and another any are around as at be because been
before being below between both but by can cannot could did do does doing done down during each either else enough ever
every few first for from further get had has have having he her here hers herself him himself his how however i if in
into is it its itself just last least less like made make many may me might more most much must my myself near neither
never no nor not now of off often on once one only onto or other others our ours ourselves out over own per perhaps
quite rather same she should since so some still such than that the their theirs them themselves then there therefore
these they this those though through thus to together too toward two under until up upon us very via was we well were
what whatever when where whether which while who whom whose why will with within without would yet you your yours
yourself yourselves
"""
FUNCTION_WORDS: dict[str, frozenset[str]] = {"en": frozenset(_ENGLISH.split())}
"""Full lists of function words. BLOOM's rule applies only to these languages."""
