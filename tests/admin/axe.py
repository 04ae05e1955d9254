"""
Runs axe-core on a page in a browser: the copy that Chromium itself carries, in the developer tools' Lighthouse.

So nothing has to be installed or downloaded for it. It is not in every build: then tests skip, and say so.
"""

from __future__ import annotations

import re

import pytest

BUNDLE = "devtools://devtools/bundled/third_party/lighthouse/lighthouse-dt-bundle.js"
LITERAL = re.compile(r"`(/\*! axe v[\d.]+(?:[^`\\]|\\.)*)`", re.DOTALL)
"""The source of axe-core in the bundle: a template literal."""

RUN = """async () => {
  const found = await axe.run(document, {resultTypes: ['violations', 'incomplete']});
  const flat = results => results.flatMap(rule => rule.nodes.map(
    node => `${rule.id}: ${node.html.slice(0, 160)} ${node.failureSummary || ''}`));
  return {version: axe.version, rules: found.passes.length, violations: flat(found.violations),
          incomplete: found.incomplete.map(rule => rule.id)};
}"""


def violations(page) -> list[str]:
    """Return what axe-core objects to on the open page, with all of its rules, best practices included."""
    page.evaluate(_source(page.context.browser))
    found = page.evaluate(RUN)
    assert found["rules"] > 15, "axe-core has examined next to nothing"
    return found["violations"]


_sources: dict[str, str] = {}


def _source(browser) -> str:
    if browser.version not in _sources:
        tab = browser.new_page()
        try:
            tab.goto(BUNDLE)
            bundle = tab.evaluate("document.body.innerText")
            literal = LITERAL.search(bundle)
            if literal is None:
                pytest.skip(f"Chromium {browser.version} carries no copy of axe-core")
            _sources[browser.version] = tab.evaluate(f"() => {literal.group(0)}")
        except Exception as error:  # a build without developer tools
            pytest.skip(f"no copy of axe-core: {str(error).splitlines()[0]}")
        finally:
            tab.close()
    return _sources[browser.version]
