"""The settings there are, and how their text is read."""

TRUE_WORDS = {"1", "yes", "true", "on"}
FALSE_WORDS = {"0", "no", "false", "off"}


def read_switch(text):
    word = text.strip().lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError(f"expected yes or no, not {text!r}")


FIELDS = {
    "host": str,
    "port": int,
    "tls": read_switch,
    "retries": int,
    "banner": str,
}


def typed(texts):
    """{name: text} to {name: value}; names that are no setting raise KeyError."""
    return {name: FIELDS[name](text) for name, text in texts.items()}
