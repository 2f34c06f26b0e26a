"""Keeps what a failed run left behind: every row of the database beside the bank's books, the inbox, the history and the logs."""

import subprocess

import psycopg

from torture.site import TortureSite

TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename LIKE 'payonce\\_%'"


def keep(site: TortureSite) -> None:
    """Write the database into the run's folder: as a dump where there is pg_dump, and each table as CSV."""
    target = site.folder / "database"
    target.mkdir(exist_ok=True)
    dump = site.postgres.cluster.binaries / "pg_dump"
    if dump.exists():
        command = [str(dump), "--no-owner", "--file", str(target / "dump.sql"), site.direct_url]
        subprocess.run(command, capture_output=True, check=False, timeout=600)
    with psycopg.connect(site.direct_url, autocommit=True) as connection:
        for (table,) in connection.execute(TABLES).fetchall():
            statement = f"COPY {table} TO STDOUT (FORMAT csv, HEADER)".encode()
            with (target / f"{table}.csv").open("wb") as file, connection.cursor().copy(statement) as rows:
                file.writelines(rows)
