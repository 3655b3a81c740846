"""What goes wrong with users, projects, keys and signatures."""

from calotype.errors.families import Conflict, NotFound, TooLarge, Unauthenticated


class IdentityNotFound(NotFound):
    """No such user, project, domain, role or assignment."""

    code = "identity_not_found"


class IdentityConflict(Conflict):
    code = "identity_conflict"


class SignatureRefused(Unauthenticated):
    """A request that was signed with an access key, and not as it must be. Told in the gateway's form by every API."""

    code = "signature_refused"


class TooManyAccessKeys(TooLarge):
    code = "too_many_access_keys"

    def __init__(self, most: int) -> None:
        super().__init__(f"a user has at most {most} access keys; delete one that is not needed")
