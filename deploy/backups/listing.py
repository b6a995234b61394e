"""What there is in the folder of backups, and whether it is as it was written."""

from deploy.backups.chain import chains, moment, plan
from deploy.backups.settings import BackupSettings


def show(backups: BackupSettings) -> int:
    """A line for each backup, and for each chain of the continuous archive."""
    archive = backups.dumps
    for one in archive.all():
        size = sum(part.octets for part in one.parts) / 1e6
        marks = ("  encrypted" if one.encrypted else "") + ("  not trusted" if archive.doubt(one) else "")
        print(f"{one.name}  {size:>9.1f} MB  PostgreSQL {one.server}{marks}")
    for name in archive.unreadable():
        print(f"{name}  has no manifest that can be read")
    for chain in chains(backups):
        bases = chain.bases.trusted()
        reach = chain.reach()
        until = moment(reach) if reach else "nowhere"
        none = "no base that is trusted" if chain.bases.all() else "no base yet"
        since = f"every moment from {moment(bases[0].finish_time)} until {until}" if bases else none
        print(f"{chain.folder.name}  continuous: {len(bases)} bases, {len(chain.pieces())} segments, {since}")
    return 0


def verify(backups: BackupSettings, name: str) -> int:
    """Reads a whole backup, or with `wal` what the continuous archive brings back last; 1 when it is damaged."""
    if name == "wal":
        way = plan(backups, None, print)
        count = len(way.pieces)
        print(f"Every moment until {moment(way.reach)} can be brought back: {count} segments since {way.base.name}")
        return 0
    archive = backups.dumps
    backup = archive.find(name)
    faults = archive.faults(backup)
    print("\n".join(faults) or f"{backup.name} is as it was written: {len(backup.parts)} files")
    return 1 if faults else 0
