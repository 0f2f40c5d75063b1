"""Texts: where they come from, what is known of them."""


def text_file(text, clean):
    return f"results/texts/{text}{'.clean' if clean else ''}.txt"


def text_source(wildcards):
    """A local text whose date says whether it has changed; where a checksum says so, a fresh clone reruns nothing."""
    text = study.texts[wildcards.text]
    return [] if text.path is None or text.sha256 or text.md5 else str(text.path)


def text_options(wildcards):
    """A text that the repository carries is named relative to it: where it was cloned to is no part of the result."""
    text = study.texts[wildcards.text]
    source = text.path or text.url
    if text.path and text.path.is_relative_to(REPOSITORY):
        source = text.path.relative_to(REPOSITORY)
    return f"{shlex.quote(str(source))} {flags(md5=text.md5, sha256=text.sha256, bytes=text.bytes)}"


def text_disk(wildcards):
    """Megabytes of a text, where the registry says how long it is."""
    return 10 + (study.texts[wildcards.text].bytes or 10**9) // 10**6
