"""What goes wrong with servers, volumes, backups and vaults that images are to be made from."""

from calotype.errors.families import Conflict, Invalid, NotFound, Unavailable


class ServerNotFound(NotFound):
    code = "server_not_found"
    img = "IMG.0005"


class MissingServerId(Invalid):
    code = "missing_server_id"
    img = "IMG.0012"


class ServerState(Invalid):
    code = "server_state"
    img = "IMG.0008"


class ServerBusy(Invalid):
    code = "server_busy"
    img = "IMG.0010"


class ServerKindUnsupported(Invalid):
    code = "server_kind_unsupported"
    img = "IMG.0063"


class ServerReclaimed(Invalid):
    code = "server_reclaimed"
    img = "IMG.0164"


class SourceUnreadable(Unavailable):
    """The source of servers does not answer, or what it says makes no sense."""

    code = "source_unreadable"
    img = "IMG.0137"


class NoSystemDisk(Invalid):
    code = "no_system_disk"
    img = "IMG.0119"


class SystemDiskUnusable(Invalid):
    code = "system_disk_unusable"
    img = "IMG.0006"


class SystemDiskMissing(Invalid):
    code = "system_disk_missing"
    img = "IMG.0110"


class SystemDiskTooLarge(Invalid):
    code = "system_disk_too_large"
    img = "IMG.0111"


class DedicatedStorage(Invalid):
    code = "dedicated_storage"
    img = "IMG.0153"


class OtherDiskBusy(Invalid):
    code = "other_disk_busy"
    img = "IMG.0139"


class VolumeUnusable(Invalid):
    code = "volume_unusable"
    img = "IMG.0120"


class VolumeBusy(Invalid):
    code = "volume_busy"
    img = "IMG.0022"


class VolumeTooLarge(Invalid):
    code = "volume_too_large"
    img = "IMG.0022"


class DifferentServers(Invalid):
    code = "different_servers"
    img = "IMG.0140"


class DiskEncrypted(Invalid):
    code = "disk_encrypted"
    img = "IMG.0095"


class MissingBackupId(Invalid):
    code = "missing_backup_id"
    img = "IMG.0019"


class BackupNotFound(NotFound):
    code = "backup_not_found"
    img = "IMG.0020"


class OlderBackupNotFound(BackupNotFound):
    code = "older_backup_not_found"
    img = "IMG.0127"


class BackupKindMismatch(Invalid):
    code = "backup_kind_mismatch"
    img = "IMG.0198"


class BackupUnusable(Invalid):
    code = "backup_unusable"
    img = "IMG.0032"


class OlderBackupUnusable(BackupUnusable):
    code = "older_backup_unusable"
    img = "IMG.0132"


class BackupUsed(Invalid):
    code = "backup_used"
    img = "IMG.0029"


class OlderBackupUsed(BackupUsed):
    code = "older_backup_used"
    img = "IMG.0134"


class BackupForbidden(Invalid):
    code = "backup_forbidden"
    img = "IMG.0133"


class SharedBackupForbidden(BackupForbidden):
    code = "shared_backup_forbidden"
    img = "IMG.0165"


class BackupWithoutOs(Invalid):
    code = "backup_without_os"
    img = "IMG.0195"


class BackupInUse(Conflict):
    """An image is made from it, or a job is making it."""

    code = "backup_in_use"


class VaultNotFound(Invalid):
    code = "vault_not_found"
    img = "IMG.0184"


class VaultUnavailable(Invalid):
    code = "vault_unavailable"
    img = "IMG.0188"


class VaultKind(Invalid):
    code = "vault_kind"
    img = "IMG.0193"


class VaultFull(Invalid):
    code = "vault_full"
    img = "IMG.0182"


class VaultServers(Invalid):
    code = "vault_servers"
    img = "IMG.0185"


class ServerInOtherVault(Invalid):
    code = "server_in_other_vault"
    img = "IMG.0183"


class OlderBackupService(Invalid):
    code = "older_backup_service"
    img = "IMG.0186"


class ServerStateWhole(Invalid):
    code = "server_state_whole"
    img = "IMG.0126"


class ServerBackingUp(Invalid):
    code = "server_backing_up"
    img = "IMG.0136"
