"""The page, in a real browser."""

import os
import re
import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the tests of the page need playwright")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# Every text with the colours that it is drawn in: its own, and of the nearest ground that is not transparent.
TEXTS = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const [r, g, b, alpha = 1] = numbers(getComputedStyle(element).backgroundColor);
      if (alpha) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const seen = [...document.querySelectorAll("body *")].filter((element) => element.checkVisibility()
    && [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
  return seen.map((element) => [element.textContent.trim().slice(0, 40),
    numbers(getComputedStyle(element).color).slice(0, 3), ground(element)]);
}"""


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)}; .ci/run installs one")
    sync_api.expect.set_options(timeout=60_000)  # milliseconds; no test waits for it to pass
    alone = ["--no-sandbox"] if os.getuid() == 0 else []  # Chromium has no sandbox for root
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*alone, "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Open the page of a service: (service, options of the browser) -> page; in the end, look at what it did."""
    pages, told = [], []

    def open_page(service, **options):
        page = browser.new_context(**options).new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: pages.append((service.url, request.url)))
        page.goto(service.url)
        return page
    yield open_page
    for context in browser.contexts:
        context.close()
    assert pages and all(url.startswith((service, f"blob:{service}")) for service, url in pages)
    # A browser notes by itself that an answer was a refusal.
    assert not [line for line in told if not line.startswith("Failed to load resource: the server responded")]


def given(name, image):
    return {"name": name, "mimeType": "image/jpeg", "buffer": image}


def names(page):
    return page.locator("#hits .name").all_text_contents()


def test_an_image_is_found_and_the_nearest_stand_in_order_with_their_scores(opened, service, client, encoded, files):
    page = opened(service)
    page.set_input_files("#file", given("query.jpg", encoded[3]))
    expect = sync_api.expect
    expect(page.get_by_role("status")).to_contain_text(" of 7 reach the threshold")
    (hits,) = client.post("/v1/search", files=files([encoded[3]])).json()["results"]
    assert names(page) == [hit["name"] for hit in hits] and hits[0]["name"] == "more/3 é.jpg"
    assert page.locator("#hits .score").all_text_contents() == [f"{hit['similarity']:.3f}" for hit in hits]
    assert page.locator("#hits .seen").first.text_content() == "camera 1, a"
    # One name has no address: its hit stands without a picture.
    page.wait_for_function("""() => {
      const images = [...document.querySelectorAll('#hits img')];
      return images.length === 6 && images.every((i) => i.complete && i.naturalWidth === 40);
    }""")
    expect(page.locator("#preview")).to_be_visible()


def test_those_below_the_threshold_stand_beyond_a_line(opened, service, encoded, levels):
    page = opened(service)
    page.set_input_files("#file", given("query.jpg", encoded[0]))
    sync_api.expect(page.locator("#hits .name")).to_have_count(7)
    choices = page.locator("#threshold option")
    least = levels["far=1e-2"]["threshold"]
    assert choices.all_text_contents() == ["none", f"far=1e-2: from {least:.3f}",
                                           "far=1e-4: needs 300,000 impostor pairs, has 21"]
    assert choices.nth(2).is_disabled()
    assert page.locator("#threshold").input_value() == "far=1e-2"
    items = page.locator("#hits li").all()
    line = next(i for i, item in enumerate(items) if item.text_content() == f"below threshold {least:.3f}")
    scores = [float(score) for score in page.locator("#hits .score").all_text_contents()]
    assert 0 < line < 7 and scores[line - 1] >= least > scores[line]
    assert ["below" in (item.get_attribute("class") or "") for item in items] == [i > line for i in range(8)]
    sync_api.expect(page.get_by_role("status")).to_have_text(f"{line} of 7 reach the threshold")
    page.select_option("#threshold", "none")
    assert page.locator("#hits li").count() == 7
    sync_api.expect(page.get_by_role("status")).to_have_text("7 found")


def test_a_bad_file_is_said_and_the_next_good_one_works(opened, service, encoded):
    page = opened(service)
    page.set_input_files("#file", given("notes.txt", b"no image"))
    alert = page.get_by_role("alert")
    sync_api.expect(alert).to_contain_text("images[0]: not an image")
    assert page.locator("#found").is_hidden() and page.locator("#preview").is_hidden()
    page.set_input_files("#file", given("query.jpg", encoded[0]))
    sync_api.expect(page.locator("#hits .name")).to_have_count(7)
    sync_api.expect(alert).to_be_empty()


def test_an_error_stays_when_the_threshold_is_changed_after_it(opened, service, encoded):
    page = opened(service)
    page.set_input_files("#file", given("query.jpg", encoded[0]))
    sync_api.expect(page.locator("#hits .name")).to_have_count(7)
    page.set_input_files("#file", given("notes.txt", b"no image"))
    alert = page.get_by_role("alert")
    sync_api.expect(alert).to_contain_text("images[0]: not an image")
    page.select_option("#threshold", "none")
    assert "not an image" in alert.text_content() and page.get_by_role("status").text_content() == ""


def test_what_a_proxy_answers_in_place_of_the_service_is_said_by_its_status(opened, service, encoded):
    page = opened(service)
    page.route("**/v1/search", lambda route: route.fulfill(status=502, content_type="text/html", body="<h1>Bad</h1>"))
    page.set_input_files("#file", given("query.jpg", encoded[0]))
    sync_api.expect(page.get_by_role("alert")).to_have_text("the service, or a proxy before it, answered 502")


def test_the_keyboard_is_enough(opened, service, encoded):
    page = opened(service)
    page.on("filechooser", lambda chooser: chooser.set_files(given("query.jpg", encoded[6])))
    sync_api.expect(page.locator("#facts dt").first).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.querySelector('#drop')).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#hits .name")).to_have_count(7)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")  # of 5, 10, 20, 50 the second was chosen
    sync_api.expect(page.locator("#hits .name")).to_have_count(5)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    sync_api.expect(page.get_by_role("status")).to_have_text("5 found")
    assert names(page)[0] == "more/6.jpg"


DROPPED = """([type, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "query.jpg", { type: "image/jpeg" }));
  const how = type === "paste" ? new ClipboardEvent(type, { clipboardData: data, bubbles: true })
    : new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true });
  document.querySelector("#drop").dispatchEvent(how);
}"""


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_an_image_can_be_dropped_and_pasted(opened, service, encoded, how):
    page = opened(service)
    sync_api.expect(page.locator("#facts dt").first).to_be_visible()
    page.evaluate(DROPPED, [how, list(encoded[1])])
    sync_api.expect(page.locator("#hits .name").first).to_have_text("1.jpg")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_screens_and_both_schemes_can_be_read(opened, service, encoded, scheme):
    page = opened(service, viewport={"width": 360, "height": 640}, color_scheme=scheme)
    page.set_input_files("#file", given("query.jpg", encoded[0]))
    sync_api.expect(page.locator("#hits .name")).to_have_count(7)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.set_input_files("#file", given("notes.txt", b"no image"))
    sync_api.expect(page.get_by_role("alert")).not_to_be_empty()
    page.evaluate("document.querySelector('#found').hidden = false")
    texts = page.evaluate(TEXTS)
    assert len(texts) > 30
    assert {text: contrast(ink, ground) for text, ink, ground in texts if contrast(ink, ground) < 4.5} == {}
    assert (luminance(texts[0][2]) < 0.1) == (scheme == "dark")


def luminance(colour):
    """WCAG 2.2's relative luminance of an sRGB colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(ink, ground):
    """WCAG 2.2's contrast ratio; 4.5 is asked for."""
    dark, light = sorted([luminance(ink), luminance(ground)])
    return (light + 0.05) / (dark + 0.05)


def test_the_facts_of_the_model_are_told(opened, service):
    page = opened(service)
    sync_api.expect(page.locator("#model")).to_have_text("small: search by image")
    told = dict(zip(page.locator("dt").all_text_contents(), page.locator("dd").all_text_contents(), strict=True))
    assert told["Input"] == "24 × 16 pixels" and told["Measured"] == "mAP 0.75" and told["Fingerprint"] == "5" * 12
    assert told["Gallery"] == "7 images, 2 cameras, 2 tags" and told["far=1e-4"].startswith("needs 300,000 impostor")


def test_with_a_token_but_without_a_gallery_the_embedding_is_shown(opened, serve, shipped, encoded):
    page = opened(serve(shipped, KILN_TOKEN="open sesame"))
    page.get_by_label("This service asks for a token").fill("wrong")
    page.get_by_role("button", name="Use it").click()
    sync_api.expect(page.get_by_role("alert")).to_contain_text("token: ")
    page.get_by_label("This service asks for a token").fill("open sesame")
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#access")).to_be_hidden()
    page.set_input_files("#file", given("query.jpg", encoded[0]))
    shown = page.locator("#embedding")
    sync_api.expect(shown).to_have_text(re.compile("^6 numbers of length 1.0000, which begin -?0.[0-9]{4}, "))
    assert page.locator("#hits li").count() == 0 and page.locator("#choices").is_hidden()
    assert page.evaluate("sessionStorage.getItem('token')") == "open sesame"
