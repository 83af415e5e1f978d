"""The catalogue of a validator: newest offers, fair places, pages that miss nothing, news that converges."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lloom.core.catalogue import LONGEST_SECONDS, Catalogue
from lloom.core.identity import NodeId
from lloom.core.messages import (
    MAX_PAGE,
    CatalogueCall,
    Models,
    ModelsPage,
    Numbers,
    OffersPage,
    Query,
    Search,
    Statistics,
    decode,
    decoder,
    encode,
)
from lloom.core.offer import Endpoint, ModelOffer, Offer
from lloom.core.queries import Answers
from lloom.core.vouch import Probe, Vouch

NOW = 1_000_000.0
VALIDATOR = NodeId(b"\xaa" * 20)
HOME = Endpoint("203.0.113.1", 9001)


def who(number: int) -> NodeId:
    """Not in the order of the numbers."""
    return NodeId((number * 0x9E3779B1 % (1 << 32)).to_bytes(4, "big") * 5)


def model(name: str = "m", **changes: Any) -> ModelOffer:
    terms = {"context": 4096, "max_output": 512, "parallel": 1, "encoding": "o200k_base", "backend": "mock"}
    return ModelOffer(id=name, **{**terms, **changes})


def offer(number: int, *models: ModelOffer, seq: int = 1, seconds: float = 600, via: bytes = b"") -> Offer:
    endpoint = Endpoint("203.0.113.1", 9001, via)
    return Offer(
        executor=who(number),
        seq=seq,
        expires=int(NOW + seconds),
        endpoints=(endpoint,),
        models=models or (model(),),
        software="test",
    )


def sealed(said: Offer, size: int = 0) -> bytes:
    return bytes(said.executor) + said.seq.to_bytes(8, "big") + bytes(size)


def vouch(
    number: int, validator: NodeId = VALIDATOR, *, good: bool = True, issued: int = 0, seconds: int = 300
) -> Vouch:
    start = int(NOW) + issued
    return Vouch(validator, who(number), start, start + seconds, (HOME,) if good else (), (Probe("m", good),))


def put(catalogue: Catalogue, said: Offer, subnet: str = "", size: int = 0) -> bool:
    return catalogue.put_offer(sealed(said, size), said, NOW, subnet)


def ask(catalogue: Catalogue, query: Query, after: bytes = b"", limit: int = 100, now: float = NOW) -> Any:
    return Answers(catalogue).answer(CatalogueCall(query, after, limit), now)


def found(catalogue: Catalogue, now: float = NOW, **conditions: Any) -> set[int]:
    """The numbers of the executors that a search finds."""
    page = ask(catalogue, Search(**conditions), now=now)
    assert page.total >= len(page.listings)
    assert not page.next
    return {number for number in range(100) for listing in page.listings if listing.executor == who(number)}


def filled(*offers: Offer) -> Catalogue:
    catalogue = Catalogue(1000, 7)
    for each in offers:
        assert put(catalogue, each)
    return catalogue


def test_the_newest_offer_of_an_executor_counts() -> None:
    catalogue = filled(offer(1, model("old"), seq=5))
    assert not put(catalogue, offer(1, model("older"), seq=4))
    assert not put(catalogue, offer(1, model("other"), seq=5))
    assert put(catalogue, offer(1, model("new"), seq=6))
    assert found(catalogue, model="new") == {1}
    assert found(catalogue, model="old") == set()
    assert len(catalogue.entries) == 1


def test_a_goodbye_hides_an_executor_at_once_and_is_told_to_fellows() -> None:
    catalogue = filled(offer(1), offer(2))
    goodbye = Offer(executor=who(1), seq=2, expires=int(NOW) + 60, endpoints=(), models=(), software="test")
    assert put(catalogue, goodbye)
    assert found(catalogue) == {2}
    assert catalogue.offers(NOW) == [offer(2)]
    assert (who(1), sealed(goodbye)) in catalogue.news(0, 0, NOW).offers
    assert not put(catalogue, offer(1)), "what was said before the goodbye is no news"


def test_what_has_expired_is_shown_to_nobody_and_forgotten() -> None:
    catalogue = filled(offer(1, seconds=10), offer(2))
    catalogue.put_vouch(b"v", vouch(2, seconds=10), NOW)
    assert found(catalogue, now=NOW + 10) == {2}
    assert not put(catalogue, offer(3, seconds=0))
    catalogue.expire(NOW + 10)
    assert list(catalogue.entries) == [who(2)]
    assert catalogue.vouches(who(2), NOW + 10) == []
    assert not catalogue.news(0, 0, NOW + 10).vouches


def test_the_newest_statement_of_each_validator_counts() -> None:
    catalogue = filled(offer(1))
    other = NodeId(b"\xbb" * 20)
    assert catalogue.put_vouch(b"old", vouch(1), NOW)
    assert not catalogue.put_vouch(b"same", vouch(1), NOW)
    assert catalogue.put_vouch(b"new", vouch(1, good=False, issued=5), NOW)
    assert catalogue.put_vouch(b"other", vouch(1, other), NOW)
    assert not catalogue.put_vouch(b"stale", vouch(1, other, issued=9, seconds=-9), NOW)
    assert not catalogue.put_vouch(b"unknown", vouch(2), NOW)
    (listing,) = ask(catalogue, Search()).listings
    assert set(listing.vouches) == {b"new", b"other"}
    assert catalogue.vouched(who(1), NOW)
    assert not catalogue.vouched(who(1), NOW + 1000)


def test_statements_outlive_a_renewal_of_the_offer() -> None:
    catalogue = filled(offer(1))
    catalogue.put_vouch(b"v", vouch(1), NOW)
    put(catalogue, offer(1, seq=2))
    assert len(catalogue.vouches(who(1), NOW)) == 1


@pytest.mark.parametrize(
    ("conditions", "fits"),
    [
        ({"model": "a"}, {1, 2}),
        ({"model": "a", "context": 8000}, {2}),
        ({"model": "b", "context": 8000}, set()),
        ({"features": ("tools",)}, {3}),
        ({"features": ("tools", "vision")}, set()),
        ({"input_price": 5}, {1, 3}),
        ({"model": "a", "input_price": 5, "output_price": 1}, set()),
        ({"backend": "vllm"}, {2}),
        ({"executors": (who(1), who(3), who(9))}, {1, 3}),
        ({"model": "nothing"}, set()),
    ],
    ids=str,
)
def test_a_search_finds_offers_of_which_one_model_fulfils_everything(conditions: Any, fits: set[int]) -> None:
    catalogue = filled(
        offer(1, model("a", input_price=5, output_price=5), model("c", output_price=1, input_price=9)),
        offer(2, model("a", context=16_000, input_price=9, output_price=9, backend="vllm"), model("b", input_price=9)),
        offer(3, model("b", features=("tools",), input_price=1)),
    )
    assert found(catalogue, **conditions) == fits


def test_models_are_summed_up_over_their_executors() -> None:
    catalogue = filled(
        offer(1, model("a", input_price=5, features=("tools",)), model("b")),
        offer(2, model("a", input_price=9, context=16_000)),
        offer(3, model("gone"), seconds=5),
    )
    page = ask(catalogue, Models(), now=NOW + 5)
    assert isinstance(page, ModelsPage)
    assert [(each.id, each.executors, each.context, each.input_price) for each in page.models] == [
        ("a", 2, 16_000, (5, 9)),
        ("b", 1, 4096, (0, 0)),
    ]
    assert page.models[0].features == ("tools",)
    first = ask(catalogue, Models(), limit=1, now=NOW + 5)
    second = ask(catalogue, Models(), first.next, 1, NOW + 5)
    assert [each.id for each in first.models + second.models] == ["a", "b"]
    assert first.total == 3, "at most: what has just run out is counted"
    assert ask(catalogue, Models(), second.next, 1, NOW + 5) == ModelsPage((), b"", 3)


def test_statistics_count_what_is_alive() -> None:
    catalogue = filled(offer(1), offer(2, model("a"), model("b", backend="vllm"), via=b"v" * 20), offer(3, seconds=1))
    catalogue.put_vouch(b"v", vouch(1), NOW)
    catalogue.put_vouch(b"v", vouch(2, good=False), NOW)
    numbers = Answers(catalogue).answer(CatalogueCall(Statistics()), NOW + 1, validators=3)
    assert numbers == Numbers(2, 3, 2, 1, 1, 3, {"mock": 2, "vllm": 1})


def test_pages_keep_within_their_bytes() -> None:
    catalogue = Catalogue(1000, 7)
    for number in range(10):
        put(catalogue, offer(number), size=200_000)
    after, seen = b"", 0
    while True:
        page = ask(catalogue, Search(), after)
        assert len(encode(page)) <= MAX_PAGE
        seen += len(page.listings)
        after = page.next
        if not after:
            break
    assert seen == 10


def test_a_page_of_models_can_be_read_whatever_they_are_said_to_do() -> None:
    features = tuple("\N{GRINNING FACE}" * 60 + f"{number:04}" for number in range(32))
    catalogue = filled(*(offer(number, model(f"m{number:03}", features=features)) for number in range(200)))
    after, seen = b"", []
    while True:
        page = ask(catalogue, Models(), after, limit=200)
        said = encode(page)
        assert len(said) <= MAX_PAGE
        assert decode(said, decoder(ModelsPage)) == page
        seen += [each.id for each in page.models]
        after = page.next
        if not after:
            break
    assert seen == [f"m{number:03}" for number in range(200)]


@given(
    st.sets(st.integers(0, 40), min_size=1),
    st.lists(st.tuples(st.integers(0, 80), st.booleans()), max_size=40),
    st.integers(1, 7),
)
@settings(deadline=None)
def test_whatever_stays_is_on_exactly_one_page(lasting: set[int], others: list[tuple[int, bool]], limit: int) -> None:
    catalogue = filled(*(offer(number) for number in sorted(lasting)))
    seen: list[bytes] = []
    after, changes = b"", iter(others)
    while True:
        page: OffersPage = ask(catalogue, Search(), after, limit)
        seen += [listing.executor for listing in page.listings]
        after = page.next
        if not after:
            break
        number, comes = next(changes, (0, False))
        if number not in lasting and comes:
            put(catalogue, offer(number))
        elif number not in lasting and who(number) in catalogue.entries:
            catalogue._drop(who(number))
    assert len(seen) == len(set(seen))
    assert {who(number) for number in lasting} <= set(seen)


steps = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(1, 5), st.booleans()), max_size=40)


@given(steps)
@settings(deadline=None)
def test_fellows_that_exchange_their_news_end_up_with_the_same(history: list[tuple[int, int, int, bool]]) -> None:
    fellows = [Catalogue(1000, epoch) for epoch in (1, 2, 3)]
    offers = {(number, seq): offer(number, seq=seq) for number in range(13) for seq in range(1, 6)}
    by_bytes = {sealed(each): each for each in offers.values()}
    said = {b"v%d-%d" % (n, s): vouch(n, issued=s) for n in range(13) for s in range(1, 6)}
    heard: dict[tuple[int, int], tuple[int, int]] = {}

    def exchange(to: int, of: int) -> None:
        while True:
            news = fellows[of].news(*heard.get((to, of), (0, 0)), NOW + 10)
            for executor, raw in news.offers:
                assert by_bytes[raw].executor == executor
                fellows[to].put_offer(raw, by_bytes[raw], NOW + 10)
            for raw in news.vouches:
                fellows[to].put_vouch(raw, said[raw], NOW + 10)
            heard[to, of] = news.epoch, news.version
            if not news.more:
                return

    for fellow, number, seq, is_offer in history:
        if is_offer:
            put(fellows[fellow], offers[number, seq])
        else:
            raw = b"v%d-%d" % (number, seq)
            fellows[fellow].put_vouch(raw, said[raw], NOW + 10)
        exchange((fellow + 1) % 3, fellow)
    for _ in range(2):
        for to in range(3):
            for of in range(3):
                exchange(to, of)
    views = [{who: (e.sealed, e.statements(NOW + 10)) for who, e in each.entries.items()} for each in fellows]
    assert views[0] == views[1] == views[2]


def test_news_comes_in_helpings_and_is_over_when_all_was_told() -> None:
    catalogue = Catalogue(1000, 7)
    for number in range(12):
        put(catalogue, offer(number), size=200_000)
    version, helpings = 0, 0
    offers: list[tuple[bytes, bytes]] = []
    while True:
        news = catalogue.news(7, version, NOW)
        assert len(encode(news)) <= MAX_PAGE
        offers += news.offers
        version, helpings = news.version, helpings + 1
        if not news.more:
            break
    assert len(offers) == 12
    assert helpings > 1
    assert catalogue.news(7, version, NOW).offers == ()
    put(catalogue, offer(3, seq=2))
    assert [executor for executor, _ in catalogue.news(7, version, NOW).offers] == [who(3)]
    assert len(catalogue.news(6, version, NOW).offers) >= 4, "after a restart it is told from the beginning"


def test_a_full_catalogue_keeps_places_for_other_networks_and_for_who_is_vouched_for() -> None:
    catalogue = Catalogue(10, 7)
    put(catalogue, offer(0), "evil")
    catalogue.put_vouch(b"v", vouch(0), NOW)
    for number in range(1, 60):
        put(catalogue, offer(number), "evil")
    assert len(catalogue.entries) == 10
    for number in range(60, 64):
        assert put(catalogue, offer(number), f"net {number}")
    assert {who(number) for number in (0, 60, 61, 62, 63)} <= catalogue.entries.keys()
    assert len(catalogue.entries) == len(catalogue.order) == 10
    assert not put(catalogue, offer(70), "evil")


def test_an_offer_that_wants_to_hold_too_long_is_not_taken() -> None:
    catalogue = Catalogue(10, 7)
    assert not put(catalogue, offer(1, seconds=LONGEST_SECONDS + 1))
    assert put(catalogue, offer(1, seconds=LONGEST_SECONDS))


def test_long_offers_take_more_places_and_grow_only_where_there_is_room() -> None:
    catalogue = Catalogue(10, 7)
    many = tuple(model(f"m{number}") for number in range(65))
    assert put(catalogue, offer(1, *many), "a")  # five places
    assert put(catalogue, offer(2), "a", size=4 * 8192)  # five more
    assert not put(catalogue, offer(3), "a", size=2 * 8192)
    assert not put(catalogue, offer(2, seq=2), "a", size=5 * 8192)
    assert catalogue.entries[who(2)].offer.seq == 1, "what was known stays"
    assert put(catalogue, offer(1, seq=2), "a")
    assert put(catalogue, offer(2, seq=2), "a", size=5 * 8192)
    assert put(catalogue, offer(3), "a", size=2 * 8192)


def test_room_is_made_by_what_has_expired_before_anybody_has_to_go() -> None:
    catalogue = Catalogue(2, 7)
    put(catalogue, offer(2), "a")
    put(catalogue, offer(1, seconds=5), "b")
    assert catalogue.put_offer(b"new", offer(3), NOW + 10, "b")
    assert catalogue.entries.keys() == {who(2), who(3)}


def test_an_executor_first_heard_of_from_fellows_counts_for_its_network_once_it_registers() -> None:
    catalogue = Catalogue(4, 7)
    for number in range(4):
        put(catalogue, offer(number))
    put(catalogue, offer(0), "home")
    for number in range(10, 13):
        put(catalogue, offer(number), f"net {number}")
    assert who(0) in catalogue.entries
    assert len(catalogue.entries) == 4


def test_where_little_fits_a_page_ends_early_and_the_next_goes_on() -> None:
    catalogue = Catalogue(20_000, 7)
    for number in range(9000):
        put(catalogue, offer(number, model("m", context=9) if number % 3000 else model("m", context=99)))
    after, seen, pages = b"", [], 0
    while True:
        page = ask(catalogue, Search(context=99), after)
        seen += [listing.executor for listing in page.listings]
        after, pages = page.next, pages + 1
        if not after:
            break
    assert set(seen) == {who(0), who(3000), who(6000)}
    assert len(seen) == 3
    assert 3 <= pages <= 10


def test_models_with_many_executors_are_counted_once_for_many_who_ask() -> None:
    catalogue = Catalogue(1000, 7)
    for number in range(20):
        put(catalogue, offer(number, model("many")))
    put(catalogue, offer(30, model("few")))
    answers = Answers(catalogue)

    def counted(now: float) -> dict[str, int]:
        page = answers.answer(CatalogueCall(Models()), now)
        assert isinstance(page, ModelsPage)
        return {each.id: each.executors for each in page.models}

    assert counted(NOW) == {"few": 1, "many": 20}
    put(catalogue, offer(31, model("many"), model("few")))
    assert counted(NOW + 1) == {"few": 2, "many": 20}
    assert counted(NOW + 3) == {"few": 2, "many": 21}
