"""An auth manager with three users: one who may do everything, one who may only read, and one who may see no DAG.

Airflow's simple auth manager lets everybody who is logged in read every DAG, so that it cannot show whether pages ask.
"""

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

ADMIN, VIEWER, STRANGER = "admin", "viewer", "stranger"
SETTING = "perf.cockpit.rights.Rights"


class Rights(SimpleAuthManager):
    """The simple auth manager, in which a stranger may see no DAG."""

    def is_authorized_dag(self, *, user: SimpleAuthManagerUser, **asked: Any) -> bool:
        return user.username != STRANGER and super().is_authorized_dag(user=user, **asked)


def users() -> list[SimpleAuthManagerUser]:
    roles = {ADMIN: "admin", VIEWER: "viewer", STRANGER: "viewer"}
    return [SimpleAuthManagerUser(username=name, role=role) for name, role in roles.items()]


# The login asks the class by name, so that overriding it in a subclass has no effect there.
SimpleAuthManager.get_users = staticmethod(users)  # type: ignore[method-assign]
