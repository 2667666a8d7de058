"""HTML pages that need no network: templates of the package, and pictures inside the page."""

from base64 import b64encode
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@cache
def template(name: str) -> Any:
    """Return a template of the package; what it is not told is an error."""
    environment = Environment(
        loader=PackageLoader("hybridtumor"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(name)


def figure(png: bytes, caption: str) -> Markup:
    """Return a picture with its caption, the PNG inside."""
    source = b64encode(png).decode()
    return Markup(
        '<figure><img alt="{0}" src="data:image/png;base64,{1}"><figcaption>{0}</figcaption></figure>'
    ).format(caption, source)
