"""`make env`: writes `.env`, the secrets and paths that `docker-compose.yaml` asks for; never over an existing one.

    make env                               the table that comes with scikit-learn
    make env SOURCE=path/to/table.parquet  any other; its directory is mounted
    make env SOURCE=s3://bucket/table      or an object store

Every secret is random and new. Only the file's owner can read it.
"""

import base64
import os
import secrets
from pathlib import Path, PurePosixPath

from local_airflow import ROOT, write_bundled_table

__all__ = ["main", "write_env"]

_MOUNTED_AT = PurePosixPath("/opt/airflow/tables")
_UID_OF_THE_IMAGE = 50_000


def main() -> None:
    """Writes the file, or says that there is one."""
    path = ROOT / ".env"
    if write_env(path, os.environ.get("SOURCE") or ""):
        print(f"wrote {path}; next: docker compose up --build")
    else:
        print(f"{path} is there already and stays as it is; remove it for new secrets")


def write_env(path: Path, source: str) -> bool:
    """Writes secrets and paths into a file that only its owner can read.

    Args:
        path: The file.
        source: Parquet table to augment, a path or a URI; empty takes the bundled one.

    Returns:
        False if there is such a file; it is left alone.
    """
    if path.exists():
        return False
    lines = [f"{name}={value}\n" for name, value in (_secrets() | _paths(source)).items()]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(lines)
    return True


def _secrets() -> dict[str, str]:
    names = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "ADMIN_PASSWORD", "JWT_SECRET", "API_SECRET_KEY")
    # Hexadecimal, as they stand in URLs and in JSON; Airflow's Fernet key alone has a form of its own.
    fernet_key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return {name: secrets.token_hex(32) for name in names} | {"FERNET_KEY": fernet_key}


def _paths(source: str) -> dict[str, str]:
    is_uri = "://" in source
    local = Path(source).resolve() if source and not is_uri else write_bundled_table()
    return {
        # Containers never run as root, not even root's.
        "AIRFLOW_UID": str(os.getuid() or _UID_OF_THE_IMAGE),
        "TABLES": str(local.parent),
        "SOURCE": source if is_uri else str(_MOUNTED_AT / local.name),
    }


if __name__ == "__main__":
    main()
