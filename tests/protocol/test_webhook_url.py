"""Which URLs and which addresses a webhook may have."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_log.protocol.webhook_url import is_public, parse_webhook_url

REFUSED = r"""
http://example.com/ http://93.184.215.14/ http://localhost/ http://127.0.0.1/ http://127.0.0.1:8080/x
https://localhost/ https://localhost:8443/ https://LOCALHOST/ https://a.localhost/ https://printer.local/
https://metadata.google.internal/ https://127.0.0.1/ https://127.0.0.2/ https://127.255.255.255/ https://0.0.0.0/
https://0.1.2.3/ https://10.0.0.1/ https://10.255.255.255/ https://172.16.0.1/ https://172.31.255.255/
https://192.168.0.1/ https://169.254.169.254/latest/meta-data/ https://169.254.0.1/ https://100.64.0.1/
https://100.127.255.255/ https://192.0.0.1/ https://192.0.2.1/ https://198.18.0.1/ https://198.19.255.255/
https://198.51.100.1/ https://203.0.113.1/ https://224.0.0.1/ https://239.1.2.3/ https://240.0.0.1/
https://255.255.255.255/ https://192.88.99.1/ https://2130706433/ https://0x7f000001/ https://017700000001/
https://0x7f.1/ https://127.1/ https://127.0.1/ https://0177.0.0.1/ https://127.0.0.01/ https://0x7f.0.0.1/
https://1.1.1.256/ https://1.1.1/ https://1.1.1.1.1/ https://example.0x1/ https://example.123/ https://127.0.0.1./
https://example.com./ https://a..b/ https://.a/ https://[::1]/ https://[::]/ https://[::ffff:127.0.0.1]/
https://[::ffff:8.8.8.8]/ https://[::ffff:7f00:1]/ https://[::127.0.0.1]/ https://[64:ff9b::7f00:1]/
https://[64:ff9b::8.8.8.8]/ https://[fe80::1]/ https://[fc00::1]/ https://[fd00:ec2::254]/ https://[ff02::1]/
https://[2001::1]/ https://[2001:db8::1]/ https://[2002:7f00:1::]/ https://[fe80::1%25eth0]/ https://[::1
https://[x]/ https://[1:2]/ https://[127.0.0.1]/ https://[3fff::1]/ https://user@example.com/
https://user:password@example.com/ https://example.com@127.0.0.1/ https://@example.com/
https://example.com#@127.0.0.1/ https://example.com/#x https://example.com\@127.0.0.1/ https://example.com:0/
https://example.com:65536/ https://example.com:/ https://example.com:x/ https://example.com:443:443/
https://-a.example/ https://a-.example/ https://exa%6dple.com/ https://ⓔxample.com/ https://bücher.example/
https:///hook https://?x https: //example.com/ ftp://example.com/ file:///etc/passwd gopher://example.com/
javascript:alert(1) HTTPS://example.com/ data:text/plain,x
"""

ALLOWED = r"""
https://example.com https://example.com/ https://example.com/hook?x=1&y=%20 https://example.com?x
https://a_b.example/ https://EXAMPLE.com:8443/hook https://xn--bcher-kva.example/ https://93.184.215.14/
https://8.8.8.8:443/ https://172.15.0.1/ https://172.32.0.1/ https://100.63.0.1/ https://100.128.0.1/
https://[2606:4700::1111]/ https://[2a00:1450:4001:81b::200e]:8443/x https://1password.com/ https://123.example/
https://localhost.example/
"""


@pytest.mark.parametrize(
    "url", [*REFUSED.split(), "", "https://exa mple.com/", "https://a/\n", "https://a\t/", "https://a/\x00"]
)
@pytest.mark.parametrize("development", [False, True])
def test_what_is_not_plainly_allowed_is_refused(url: str, development: bool):
    if development and url.startswith(("http://localhost/", "http://127.0.0.1")):
        return
    with pytest.raises(ValueError, match=" "):
        parse_webhook_url(url, development=development)


@pytest.mark.parametrize("url", ALLOWED.split())
def test_public_names_and_addresses_are_allowed(url: str):
    parsed = parse_webhook_url(url)
    assert (parsed.scheme, parsed.local) == ("https", False)
    assert parsed.target.startswith("/")
    assert parsed.host == parsed.host.lower()


def test_a_url_is_at_most_2048_characters():
    assert parse_webhook_url("https://example.com/" + "x" * 2028).port == 443
    with pytest.raises(ValueError, match="2048"):
        parse_webhook_url("https://example.com/" + "x" * 2029)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:9", "127.0.0.255"])
def test_this_machine_is_allowed_for_development(host: str):
    assert parse_webhook_url(f"http://{host}/x", development=True).local


@pytest.mark.parametrize(
    "host", ["127.0.1.1", "127.1.0.1", "[::1]", "127.0.0.1.example", "localhost.example", "0.0.0.0"]
)
def test_other_names_of_this_machine_are_not_even_for_development(host: str):
    with pytest.raises(ValueError, match="https"):
        parse_webhook_url(f"http://{host}/x", development=True)


def test_a_list_of_hosts_is_by_name_whatever_the_port():
    hosts = frozenset(("hooks.example",))
    assert parse_webhook_url("https://HOOKS.example:8443/", hosts=hosts).host == "hooks.example"
    for url in ("https://example/", "https://a.hooks.example/", "https://93.184.215.14/"):
        with pytest.raises(ValueError, match="among"):
            parse_webhook_url(url, hosts=hosts)
    with pytest.raises(ValueError, match="https"):
        parse_webhook_url("http://hooks.example/", hosts=hosts)


@given(st.ip_addresses())
def test_no_address_is_public_that_the_standard_library_knows_to_be_something_else(address):
    if is_public(str(address)):
        assert address.is_global
        kinds = ("private", "loopback", "link_local", "multicast", "unspecified", "reserved")
        assert [kind for kind in kinds if getattr(address, f"is_{kind}")] == []
        assert isinstance(address, ipaddress.IPv4Address) or not (
            address.ipv4_mapped or address.sixtofour or address.teredo
        )


@pytest.mark.parametrize(
    "text", ["", "localhost", "1.2.3", "8.8.8.08", "0x8.8.8.8", "8.8.8.8 ", "fe80::1%eth0", "134744072"]
)
def test_what_is_no_address_in_the_usual_form_is_not_public(text: str):
    assert not is_public(text)
