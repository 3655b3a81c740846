"""What must be done before the service starts: the schema, and on the first start its domain, projects, users and
metadata definitions.

Run by `calotype serve` as a process of its own, so that the parent stays small. Safe to run again, and at once by many.
"""

import os
import sys

from calotype import logs
from calotype.db.engine import Database, open_engine
from calotype.db.migrate import migrate
from calotype.errors import CalotypeError
from calotype.identity.bootstrap import bootstrap
from calotype.metadefs import defaults
from calotype.settings import Settings, WrongSetting, load


def prepare(settings: Settings) -> None:
    settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    migrate(settings)
    db = Database(open_engine(settings))
    try:
        bootstrap(db, settings, os.environ)
        defaults.load(db)
    finally:
        db.close()


if __name__ == "__main__":
    in_force = load()
    logs.configure(in_force)
    try:
        prepare(in_force)
    except (OSError, CalotypeError, WrongSetting) as error:
        sys.exit(f"calotype: cannot prepare {in_force.folder}: {error}")
