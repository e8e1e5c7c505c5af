"""Images that are nearly right, in every form that `POST /v1/classify` and `POST /v1/embed` take."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from hypothesis import strategies as st

from tests.fuzz.campaign import campaign, try_inputs
from tests.fuzz.mutations import TEXTS, changed_bytes, changed_json, texts, to_json
from tests.fuzz.seeds import BODY, FORM, IMAGES, IMAGES_OF_BODY
from tests.fuzz.target import Target

PATHS = st.sampled_from(("/v1/classify", "/v1/embed"))
MEDIA_TYPES = ("image/jpeg", "image/anything", "application/octet-stream", "application/json", "text/plain", "", "/")
FORM_TYPES = (
    *["multipart/form-data; boundary=x"] * 8,
    *(
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="x',
        "multipart/form-data;",
    ),
    *(
        "multipart/form-data; boundary=" + "x" * 300,
        "multipart/form-data; boundary=x; charset=nothing",
        "multipart/mixed",
    ),
    "multipart/form-data; boundary=\xe9",
)
KNOWN_PATHS = (
    *("/v2/models/{}", "/v2/models/{}/versions/{}", "/v2/models/{}/ready", "/v2/models/{}/versions/{}/infer"),
    *("/v2/models/{}/config", "/v2/models/{}/stats", "/v2/systemsharedmemory/region/{}/status", "/v1/models/{}"),
    *("/v2/models/{}/trace/setting", "/docs/assets/{}", "/v2/repository/{}/index"),
)


@campaign(short=150, long=4000)
def test_images(target: Target, inputs: int) -> None:
    """Every format with bytes changed, as a raw body, as any media type, with any query."""
    query = st.dictionaries(st.sampled_from(("model", "version", "top_k", "other")), texts(), max_size=2)

    def send(request: tuple[str, bytes, str, dict[str, str]]) -> None:
        path, content, media_type, asked = request
        path += f"?{urlencode(asked, errors='surrogatepass')}" if asked else ""
        target.post(path, content, {"content-type": media_type})

    changed = st.sampled_from(IMAGES).flatmap(changed_bytes)
    media_types = st.one_of(st.just("image/jpeg"), st.sampled_from(MEDIA_TYPES))
    requests = st.tuples(PATHS, changed, media_types, st.one_of(st.just({}), query))
    try_inputs("classify, images", inputs, requests, send, target.service.resident_bytes)
    target.must_be_unharmed()


@campaign(short=100, long=1500)
def test_json(target: Target, inputs: int) -> None:
    """Its members of any type; images that are no base64, or base64 of what is no image."""
    images = st.one_of(changed_bytes(IMAGES_OF_BODY[0].encode()).map(lambda text: text.decode("latin-1")), texts())
    bodies = st.one_of(
        changed_json(BODY),
        changed_bytes(to_json(BODY)),
        st.lists(images, max_size=4).map(lambda found: {"images": found}),
    )
    headers = {"content-type": "application/json"}
    try_inputs(
        "classify, JSON",
        inputs,
        st.tuples(PATHS, bodies),
        lambda request: target.post(request[0], to_json(request[1]), headers),
        target.service.resident_bytes,
    )
    target.must_be_unharmed()


@campaign(short=100, long=1500)
def test_forms(target: Target, inputs: int) -> None:
    """Parts, heads and boundaries with bytes changed."""
    forms = st.tuples(PATHS, changed_bytes(FORM), st.sampled_from(FORM_TYPES))

    def send(request: tuple[str, bytes, str]) -> None:
        path, body, media_type = request
        target.post(path, body, {"content-type": media_type})

    try_inputs("classify, forms", inputs, forms, send, target.service.resident_bytes)
    target.must_be_unharmed()


@campaign(short=100, long=1500)
def test_paths(target: Target, inputs: int) -> None:
    """Names and versions of any letters, in any path, by any method."""
    name = st.one_of(st.sampled_from(("simple", "colours", "1", "region")), st.sampled_from(TEXTS), texts())
    step = st.one_of(
        st.sampled_from(
            ("v1", "v2", "models", "versions", "infer", "ready", "config", "stats", "health", "repository")
        ),
        st.sampled_from(("index", "systemsharedmemory", "region", "status", "docs", "assets", "logging", "trace", "")),
        name.map(lambda text: quote(text, safe="", errors="surrogatepass")),
    )
    known = st.sampled_from(KNOWN_PATHS)
    quoted = name.map(lambda text: quote(text, safe="", errors="surrogatepass"))
    paths = st.one_of(
        st.tuples(known, quoted, quoted).map(lambda found: found[0].format(*found[1:])),
        st.lists(step, max_size=6).map(lambda steps: "/" + "/".join(steps)),
    )
    methods = st.sampled_from(("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "PROPFIND"))

    def send(request: tuple[str, str]) -> None:
        method, path = request
        if "/unload" not in path and "/load" not in path:
            target.request(method, path, others=(501, 503))

    try_inputs("paths and methods", inputs, st.tuples(methods, paths), send, target.service.resident_bytes)
    target.must_be_unharmed()
