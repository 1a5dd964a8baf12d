"""score: what it needs beside the text, and that real articles of many languages pass Gopher's quality rules while menus do not."""

import io
import json
import sys
import tarfile
import types
from pathlib import Path

import pytest

from contract.errors import InputError, RecipeError
from contract.settings.corpus import Score
from contract.settings.filter import Filter, GopherRepetition
from pipelines.rules.decide import decide, rules_for
from pipelines.rules.measure import Tools, clean_and_score
from pipelines.score import tools_for
from pipelines.text.words import Text

ARPA = r"""\data\
ngram 1=4
ngram 2=1

\1-grams:
-1.0	<unk>
-99	<s>	0
-1.0	</s>
-0.5	river	0

\2-grams:
-0.25	<s> river

\end\
"""


def fake_kenlm(path, config=None):
    assert Path(path).read_text() == ARPA
    return types.SimpleNamespace(perplexity=lambda words: 7.0 if words == "the river" else -1.0)


@pytest.fixture(autouse=True)
def _forget_tools():
    yield
    tools_for.cache_clear()


def test_a_model_is_downloaded_and_asked(tmp_path, monkeypatch):
    (tmp_path / "lm.arpa").write_text(ARPA)
    monkeypatch.setitem(sys.modules, "kenlm", types.SimpleNamespace(Model=fake_kenlm))
    settings = Score(perplexity_model=str(tmp_path / "lm.arpa"))
    assert clean_and_score("The River.", "en", settings, tools_for(settings))[1]["perplexity"] == 7.0


def test_a_real_model_counts_the_end_of_the_sentence(tmp_path):
    pytest.importorskip("kenlm", reason="optional: no recipe needs it unless it names a model")
    (tmp_path / "lm.arpa").write_text(ARPA)
    settings = Score(perplexity_model=str(tmp_path / "lm.arpa"))
    scores = clean_and_score("River river!", "en", settings, tools_for(settings))[1]
    assert scores["perplexity"] == pytest.approx(10 ** ((0.25 + 0.5 + 1.0) / 3), rel=1e-4)


def test_a_model_without_its_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "lm.arpa").write_text(ARPA)
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(
        RecipeError, match=r"score\.perplexity_model: the package kenlm is not installed; pip install kenlm"
    ):
        tools_for(Score(perplexity_model=str(tmp_path / "lm.arpa")))


def test_a_folder_without_lists_is_named(tmp_path):
    with pytest.raises(InputError, match=r"score\.bad_words: .* holds no list"):
        tools_for(Score(bad_words=str(tmp_path)))


def test_the_lists_that_c4_used(data_dir, tmp_path):
    with tarfile.open(data_dir / "urlfilter" / "ldnoobw_wordlists.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    settings = Score(bad_words=str(tmp_path / "ldnoobw"))
    tools = tools_for(settings)
    assert {"en", "de", "fr", "es", "it", "pt", "pl", "ru", "zh", "ja"} <= set(tools.bad_words)
    for language, listed in tools.bad_words.items():
        entries = (tmp_path / "ldnoobw" / language).read_text().split("\n")
        unseen = [entry for entry in entries if entry.strip() and not listed.count(Text(entry, language))]
        assert unseen == [], language
        entry = max(entries, key=lambda one: sum(map(str.isalpha, one)))
        scores = clean_and_score(f"... {entry.title()}! ...", language, settings, tools)[1]
        assert scores["bad_words"] >= 1, f"{language}: {listed}"
        assert clean_and_score("12 34", language, settings, tools)[1]["bad_words"] == 0
    assert clean_and_score("vorto", "mt", settings, tools)[1]["bad_words"] is None, "no list, nothing measured"


QUALITY = Filter(gopher_repetition=GopherRepetition(enabled=False))


def verdict(text, language, settings=QUALITY):
    """By length and Gopher's quality rules, of the default recipe."""
    rules = [rule for rule in rules_for(settings, language) if rule.rule_set != "fineweb"]
    found = decide(clean_and_score(text, language, Score(), Tools())[1], rules)
    return found[0] if found else None


def sentences(data_dir, language):
    with tarfile.open(data_dir / "lid" / "lingua_sentences_75langs.tar.xz") as archive:
        name = next(one for one in archive.getnames() if one.endswith(f"sentences/{language}.txt"))
        member = archive.extractfile(name)
        assert member
        return [line.strip() for line in io.TextIOWrapper(member, "utf-8") if line.strip()]


MENUS = {
    "en": "Home News Sport Weather Login Register Basket Contact Imprint",
    "de": "Startseite Nachrichten Sport Wetter Anmelden Registrieren Warenkorb Kontakt Impressum",
    "fr": "Accueil Actualités Sport Météo Connexion Inscription Panier Contact Mentions",
    "es": "Inicio Noticias Deportes Tiempo Entrar Registrarse Carrito Contacto Aviso",
    "it": "Home Notizie Sport Meteo Accedi Registrati Carrello Contatti Note",
    "pt": "Início Notícias Esportes Tempo Entrar Cadastrar Carrinho Contato Aviso",
    "pl": "Główna Wiadomości Sport Pogoda Logowanie Rejestracja Koszyk Kontakt Regulamin",
    "ru": "Главная Новости Спорт Погода Войти Регистрация Корзина Контакты Правила",
    "zh": "首页 新闻 体育 天气 登录 注册 购物车 联系 版权",
    "ja": "ホーム ニュース スポーツ 天気 ログイン 登録 カート 連絡先 規約",
}


@pytest.mark.parametrize("language", MENUS)
def test_real_sentences_pass_in_every_language_and_menus_do_not(data_dir, language):
    found = sentences(data_dir, language)
    articles = ["\n".join(found[at : at + 20]) for at in range(0, len(found) - 19, 20)]
    assert len(articles) >= 15
    kept = [verdict(article, language, Filter()) for article in articles].count(None)
    assert kept >= 0.9 * len(articles)
    menu = "\n".join(MENUS[language].split() * 12)
    assert verdict(menu, language) in {"few_stop_words", "lines_removed"}
    assert verdict(MENUS[language] + "。", language) == "too_few_words"


def test_real_pages_pass_and_their_frames_do_not(data_dir):
    pages = json.loads((data_dir / "html_gold" / "aeb_ground-truth.dev.json").read_text()).values()
    long = [page["articleBody"] for page in pages if len(page["articleBody"].split()) >= 100]
    kept = [verdict(text, "en") for text in long]
    assert len(long) >= 50
    assert kept.count(None) >= 0.85 * len(long), kept
