"""The identity service's SQL, by resource."""

from services.identity.queries.access import get_access
from services.identity.queries.roles import (
    count_holders,
    get_role,
    get_role_row,
    insert_default_role,
    list_roles,
    list_roles_by_id,
    list_roles_by_slug,
    list_roles_of_user,
    replace_permissions,
    replace_roles,
)
from services.identity.queries.sessions import end_sessions, find_family, insert_session, rotate
from services.identity.queries.tenants import (
    find_listing,
    get_listing,
    get_tenant,
    get_tenant_row,
    list_listings,
    write_listing,
)
from services.identity.queries.transactions import change_access, in_tenant
from services.identity.queries.users import (
    count_administrators,
    find_account,
    get_password_hash,
    get_user,
    get_user_row,
    list_names,
    list_users,
    replace_password,
)

__all__ = [
    "change_access",
    "count_administrators",
    "count_holders",
    "end_sessions",
    "find_account",
    "find_family",
    "find_listing",
    "get_access",
    "get_listing",
    "get_password_hash",
    "get_role",
    "get_role_row",
    "get_tenant",
    "get_tenant_row",
    "get_user",
    "get_user_row",
    "in_tenant",
    "insert_default_role",
    "insert_session",
    "list_listings",
    "list_names",
    "list_roles",
    "list_roles_by_id",
    "list_roles_by_slug",
    "list_roles_of_user",
    "list_users",
    "replace_password",
    "replace_permissions",
    "replace_roles",
    "rotate",
    "write_listing",
]
