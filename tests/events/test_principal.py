"""Principals: names that no two of them share, and what is refused."""

from __future__ import annotations

import pytest

import tokenwire
from tokenwire import Principal, PrincipalLimits
from tokenwire.errors import ConfigError, InputError
from tokenwire.events.names import TENANT_END, checked_principal
from tokenwire.events.principal import ROLES


def test_a_principal_without_a_tenant_is_stored_as_before():
    assert Principal("ann").name == "ann"
    assert Principal.of("ann") == Principal("ann")


@pytest.mark.parametrize("separator", ["/", ":", "\\x1e", " ", "|", "@", ".", "%1e", "\u2044"])
def test_no_two_principals_share_a_name(separator):
    both = [
        Principal(f"acme{separator}ann"),
        Principal("ann", tenant="acme"),
        Principal("acme", tenant="ann"),
        Principal(f"b{separator}c", tenant="a"),
        Principal("c", tenant=f"a{separator}b"),
        Principal("ann"),
        Principal("acme"),
    ]
    names = {principal.name for principal in both}
    assert len(names) == len(both)
    for principal in both:
        assert Principal.of(principal.name) == principal
        assert checked_principal(principal.name) == principal.name


@pytest.mark.parametrize("part", ["", " ", " ann", "ann ", "a\nb", f"a{TENANT_END}b", "x" * 201, 7])
def test_an_id_or_tenant_that_is_none_is_refused(part):
    with pytest.raises(ConfigError, match="the id of a principal"):
        Principal(part)
    with pytest.raises(ConfigError, match="the tenant of a principal"):
        Principal("ann", tenant=part)


@pytest.mark.parametrize(
    "name",
    [TENANT_END, f"{TENANT_END}ann", f"acme{TENANT_END}", f"a{TENANT_END}b{TENANT_END}c", 7],
)
def test_a_name_that_no_principal_has_is_refused(name):
    with pytest.raises(InputError, match="'principal' must"):
        checked_principal(name)


def test_roles_are_a_closed_set():
    assert Principal("ann").roles is None
    assert Principal("ann", roles=[]).roles == frozenset()
    assert Principal("ann", roles="read").roles == {"read"}
    assert Principal("ann", roles=("read", "approve")).roles == {"read", "approve"}
    assert Principal("ann", roles=set(ROLES)).roles == ROLES
    for roles in ({"editor"}, {"read", "Read"}, "everything", 7, [None]):
        with pytest.raises(ConfigError, match="role"):
            Principal("ann", roles=roles)


def test_limits_are_counts():
    limits = PrincipalLimits(runs=2, tokens_per_day=0)
    assert Principal("ann", limits=limits).limits is limits
    for value in (-1, 1.5, True, "2", float("inf")):
        with pytest.raises(ConfigError, match="'runs' must be a count"):
            PrincipalLimits(runs=value)
    with pytest.raises(ConfigError, match="must be PrincipalLimits"):
        Principal("ann", limits={"runs": 2})
    with pytest.raises(ConfigError, match="without a tenant has no tenant_limits"):
        Principal("ann", tenant_limits=limits)
    assert Principal("ann", tenant="acme", tenant_limits=limits).tenant_limits is limits


def test_both_are_public():
    assert tokenwire.Principal is Principal
    assert hash(Principal("ann", roles={"read"})) == hash(Principal("ann", roles={"read"}))
