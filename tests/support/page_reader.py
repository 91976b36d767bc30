"""An HTML page as tests ask about it."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.scripts, self.words = [], [], {}, ""
        self._script = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        self.addresses += [values[k] for k in ("src", "href", "action", "poster") if values.get(k)]
        if tag == "script":
            self._script = values.get("type", "code")

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = None

    def handle_data(self, data):
        if self._script:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data
        else:
            self.words += data

    def count(self, tag, **wanted):
        return sum(t == tag and all(v.get(k) == w for k, w in wanted.items()) for t, v in self.tags)
