"""What each job type consists of: its named steps, what each weighs in the progress, and which queue it waits in."""

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

from calotype.jobs.model import JobType

Queue = Literal["heavy", "light", "remote"]


class StepPlan(Struct, frozen=True):
    """`weight`: its share of the whole job's time, in percent, roughly. `task`: how the IMS API calls it."""

    name: str
    weight: int
    task: str


class Plan(Struct, frozen=True, kw_only=True):
    # heavy: reads or writes a disk image, as many at once as a worker has slots; light: only rows; remote: moves bytes
    # to another service, and waits for it
    queue: Queue
    steps: tuple[StepPlan, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps)

    def percent(self, position: int, fraction: float) -> int:
        """Progress of the whole job in hundredths of a percent, when `fraction` (0 to 1) of a step is done."""
        whole = sum(step.weight for step in self.steps)
        done = sum(step.weight for step in self.steps[:position]) + self.steps[position].weight * min(1.0, fraction)
        return min(9999, int(10000 * done / whole))


def _import(task: str) -> tuple[StepPlan, ...]:
    return (
        StepPlan("fetch", 5, f"{task}:ObtainImageFileTask"),
        StepPlan("inspect", 5, f"{task}:ObtainImageInfoTask"),
        StepPlan("convert", 60, f"{task}:ConvertImageTask"),
        StepPlan("verify", 25, f"{task}:VerifyImageTask"),
        StepPlan("publish", 5, f"{task}:RegisterImageTask"),
    )


def _capture(task: str) -> tuple[StepPlan, ...]:
    return (
        StepPlan("fetch", 30, f"{task}:CaptureDiskTask"),
        StepPlan("inspect", 5, f"{task}:ObtainImageInfoTask"),
        StepPlan("convert", 40, f"{task}:ConvertImageTask"),
        StepPlan("verify", 20, f"{task}:VerifyImageTask"),
        StepPlan("publish", 5, f"{task}:RegisterImageTask"),
    )


def _interoperable(task: str) -> tuple[StepPlan, ...]:
    return (
        StepPlan("fetch", 40, f"{task}:ObtainImageFileTask"),
        StepPlan("decompress", 10, f"{task}:DecompressImageTask"),
        StepPlan("inspect", 5, f"{task}:ObtainImageInfoTask"),
        StepPlan("convert", 20, f"{task}:ConvertImageTask"),
        StepPlan("verify", 15, f"{task}:VerifyImageTask"),
        StepPlan("publish", 10, f"{task}:RegisterImageTask"),
    )


PLANS: Final[Mapping[JobType, Plan]] = {
    JobType.IMPORT: Plan(queue="heavy", steps=_import("ImportImageTask")),
    JobType.IMPORT_DATA: Plan(queue="heavy", steps=_import("ImportDataImageTask")),
    JobType.OVA: Plan(queue="heavy", steps=(StepPlan("inspect", 1, "ImportOvaImageTask:ObtainImageInfoTask"),)),
    JobType.FROM_SERVER: Plan(queue="heavy", steps=_capture("CreateImageByInstanceTask")),
    JobType.FROM_VOLUME: Plan(queue="heavy", steps=_capture("VolumeCreateImageTask")),
    JobType.FROM_VOLUMES: Plan(queue="light", steps=()),  # its sub jobs do everything
    JobType.COPY_VOLUME: Plan(queue="heavy", steps=_capture("CopyVolumeToImageTask")),
    JobType.WHOLE_FROM_SERVER: Plan(queue="heavy", steps=_capture("CreateWholeImageByInstanceTask")),
    JobType.WHOLE_FROM_BACKUP: Plan(queue="heavy", steps=_capture("CreateWholeImageByBackupTask")),
    JobType.REGISTER: Plan(queue="heavy", steps=_import("NativeImportImageTask")),
    JobType.EXPORT: Plan(
        queue="heavy",
        steps=(
            StepPlan("fetch", 5, "NativeExportImageTask:ObtainImageFileTask"),
            StepPlan("convert", 65, "NativeExportImageTask:ConvertImageTask"),
            StepPlan("verify", 20, "NativeExportImageTask:VerifyImageTask"),
            StepPlan("publish", 10, "NativeExportImageTask:UploadImageFileTask"),
        ),
    ),
    JobType.COPY: Plan(queue="light", steps=(StepPlan("publish", 1, "CopyImageInRegionTask:RegisterImageTask"),)),
    JobType.COPY_ACROSS: Plan(
        queue="remote",
        steps=(
            StepPlan("create", 2, "CrossRegionCopyImageTask:CreateImageTask"),
            StepPlan("transfer", 94, "CrossRegionCopyImageTask:TransferImageFileTask"),
            StepPlan("verify", 2, "CrossRegionCopyImageTask:VerifyImageTask"),
            StepPlan("publish", 2, "CrossRegionCopyImageTask:RegisterImageTask"),
        ),
    ),
    JobType.ADD_MEMBERS: Plan(queue="light", steps=(StepPlan("publish", 1, "AddImageMembersTask:AddMembersTask"),)),
    JobType.REMOVE_MEMBERS: Plan(queue="light", steps=(StepPlan("publish", 1, "DelImageMembersTask:DelMembersTask"),)),
    JobType.ANSWER_OFFERS: Plan(
        queue="light", steps=(StepPlan("publish", 1, "UpdateImageMembersTask:UpdateMembersTask"),)
    ),
    JobType.INTEROPERABLE: Plan(queue="heavy", steps=_interoperable("InteroperableImportTask")),
    JobType.TASK: Plan(queue="heavy", steps=_interoperable("TaskImportTask")),
    JobType.LOCATE: Plan(
        queue="heavy",
        steps=(
            StepPlan("fetch", 80, "LocationImportTask:ObtainImageFileTask"),
            StepPlan("inspect", 19, "LocationImportTask:ObtainImageInfoTask"),
            StepPlan("publish", 1, "LocationImportTask:RegisterImageTask"),
        ),
    ),
    JobType.REPLICATE: Plan(
        queue="heavy",
        steps=(
            StepPlan("copy", 99, "InteroperableCopyTask:CopyImageFileTask"),
            StepPlan("publish", 1, "InteroperableCopyTask:RegisterImageTask"),
        ),
    ),
}
