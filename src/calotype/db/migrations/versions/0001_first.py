"""The first schema.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "blobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("md5", sa.Text(), nullable=False),
        sa.Column("hash_algorithm", sa.Text(), nullable=False),
        sa.Column("hash_value", sa.Text(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("size >= 0", name=op.f("ck_blobs_size")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blobs")),
    )
    op.create_index(op.f("ix_blobs_hash_value_size"), "blobs", ["hash_value", "size"], unique=False)
    op.create_table(
        "buckets",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("folder_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "name", name=op.f("pk_buckets")),
        sa.UniqueConstraint("folder_id", name=op.f("uq_buckets_folder_id")),
    )
    op.create_table(
        "domains",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_domains")),
        sa.UniqueConstraint("name", name=op.f("uq_domains_name")),
    )
    op.create_table(
        "image_props",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "name", "value", "created_at", "image_id", name=op.f("pk_image_props")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_image_props_image_id"), "image_props", ["image_id"], unique=False)
    op.create_table(
        "image_tags",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "tag", "created_at", "image_id", name=op.f("pk_image_tags")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_image_tags_image_id"), "image_tags", ["image_id"], unique=False)
    op.create_table(
        "image_usage",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("images", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("bytes >= 0", name=op.f("ck_image_usage_bytes")),
        sa.CheckConstraint("images >= 0", name=op.f("ck_image_usage_images")),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_image_usage")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("begin_time", sa.BigInteger(), nullable=False),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("fail_reason", sa.Text(), nullable=True),
        sa.Column("entities", sa.Text(), server_default="{}", nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=True),
        sa.Column("image_id", sa.Text(), nullable=True),
        sa.Column("percent", sa.Integer(), server_default="0", nullable=False),
        sa.Column("current_task", sa.Text(), server_default="", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("cancel_reason", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("priority", sa.Integer(), server_default="5", nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.CheckConstraint("(end_time IS NOT NULL) = (status IN ('SUCCESS', 'FAIL'))", name=op.f("ck_jobs_end_time")),
        sa.CheckConstraint("(error_code IS NOT NULL) = (status = 'FAIL')", name=op.f("ck_jobs_error_code")),
        sa.CheckConstraint("status IN ('INIT', 'RUNNING', 'SUCCESS', 'FAIL')", name=op.f("ck_jobs_status")),
        sa.CheckConstraint("percent BETWEEN 0 AND 10000", name=op.f("ck_jobs_percent")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("project_id", "request_id", name=op.f("uq_jobs_project_id_request_id")),
    )
    op.create_index(
        "ix_jobs_expires_at",
        "jobs",
        ["expires_at"],
        unique=False,
        sqlite_where=sa.text("expires_at IS NOT NULL"),
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_index("ix_jobs_image_id", "jobs", ["image_id"], unique=False)
    op.create_index("ix_jobs_parent_id", "jobs", ["parent_id"], unique=False)
    op.create_table(
        "revocations",
        sa.Column("subject_kind", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("before", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "subject_kind IN ('token', 'user', 'project', 'domain')", name=op.f("ck_revocations_subject_kind")
        ),
        sa.PrimaryKeyConstraint("subject_kind", "subject_id", name=op.f("pk_revocations")),
    )
    op.create_table(
        "roles",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_roles")),
        sa.UniqueConstraint("name", name=op.f("uq_roles_name")),
    )
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_keys")),
    )
    op.create_table(
        "workers",
        sa.Column("executor_id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('live', 'draining', 'stopped', 'dead')", name=op.f("ck_workers_state")),
        sa.PrimaryKeyConstraint("executor_id", name=op.f("pk_workers")),
    )
    op.create_table(
        "images",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("visibility", sa.Text(), nullable=False),
        sa.Column("protected", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("hidden", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("disk_format", sa.Text(), nullable=True),
        sa.Column("container_format", sa.Text(), nullable=True),
        sa.Column("min_disk", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("min_ram", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("virtual_size", sa.BigInteger(), nullable=True),
        sa.Column("checksum", sa.Text(), nullable=True),
        sa.Column("hash_algorithm", sa.Text(), nullable=True),
        sa.Column("hash_value", sa.Text(), nullable=True),
        sa.Column("blob_id", sa.Text(), nullable=True),
        sa.Column("upload_id", sa.Text(), nullable=True),
        sa.Column("reserved_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("touched_at", sa.BigInteger(), nullable=True),
        sa.Column("properties", sa.Text(), server_default="{}", nullable=False),
        sa.Column("tags", sa.Text(), server_default="[]", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("active_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.CheckConstraint("(deleted_at IS NOT NULL) = (status = 'deleted')", name=op.f("ck_images_deleted_at")),
        sa.CheckConstraint(
            "status IN ('queued', 'saving', 'uploading', 'importing', 'active', 'deactivated', 'killed', "
            "'deleted', 'pending_delete')",
            name=op.f("ck_images_status"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('active', 'deactivated') OR blob_id IS NOT NULL", name=op.f("ck_images_active_has_bytes")
        ),
        sa.CheckConstraint(
            "visibility IN ('public', 'private', 'shared', 'community')", name=op.f("ck_images_visibility")
        ),
        sa.CheckConstraint("reserved_bytes >= 0", name=op.f("ck_images_reserved_bytes")),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name=op.f("fk_images_blob_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
    )
    op.create_index("ix_images_blob_id", "images", ["blob_id"], unique=False)
    op.create_index(
        "ix_images_touched",
        "images",
        ["touched_at"],
        unique=False,
        sqlite_where=sa.text("touched_at IS NOT NULL"),
        postgresql_where=sa.text("touched_at IS NOT NULL"),
    )
    op.create_table(
        "job_steps",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("done_bytes", sa.BigInteger(), nullable=True),
        sa.Column("total_bytes", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'done', 'failed', 'skipped')", name=op.f("ck_job_steps_state")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_steps_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "position", name=op.f("pk_job_steps")),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("domain_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.ForeignKeyConstraint(["domain_id"], ["domains.id"], name=op.f("fk_projects_domain_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("domain_id", "name", name=op.f("uq_projects_domain_id_name")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("domain_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("default_project_id", sa.Text(), nullable=True),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["domain_id"], ["domains.id"], name=op.f("fk_users_domain_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("domain_id", "name", name=op.f("uq_users_domain_id_name")),
    )
    op.create_table(
        "image_members",
        sa.Column("member_id", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("status IN ('pending', 'accepted', 'rejected')", name=op.f("ck_image_members_status")),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_image_members_image_id")),
        sa.PrimaryKeyConstraint("member_id", "image_id", name=op.f("pk_image_members")),
    )
    op.create_index(op.f("ix_image_members_image_id"), "image_members", ["image_id"], unique=False)
    op.create_table(
        "role_assignments",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("role_id", sa.Text(), nullable=False),
        sa.Column("target_kind", sa.Text(), nullable=False),
        sa.Column("target_id", sa.Text(), nullable=False),
        sa.CheckConstraint("target_kind IN ('project', 'domain')", name=op.f("ck_role_assignments_target_kind")),
        sa.ForeignKeyConstraint(
            ["role_id"], ["roles.id"], name=op.f("fk_role_assignments_role_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_role_assignments_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "target_kind", "target_id", "role_id", name=op.f("pk_role_assignments")),
    )
    op.create_index(
        op.f("ix_role_assignments_target_kind_target_id"),
        "role_assignments",
        ["target_kind", "target_id"],
        unique=False,
    )
    op.create_index("ix_jobs_project_page", "jobs", ["project_id", sa.text("begin_time DESC"), sa.text("id DESC")])
    op.create_index(
        "ix_jobs_project_status_page", "jobs", ["project_id", "status", sa.text("begin_time DESC"), sa.text("id DESC")]
    )
    op.create_index(
        "ix_images_project_name", "images", ["project_id", "name", sa.text("created_at DESC"), sa.text("id DESC")]
    )
    op.create_index("ix_images_project_page", "images", ["project_id", sa.text("created_at DESC"), sa.text("id DESC")])
    op.create_index(
        "ix_images_project_status", "images", ["project_id", "status", sa.text("created_at DESC"), sa.text("id DESC")]
    )
    op.create_index(
        "ix_images_visibility_page", "images", ["visibility", sa.text("created_at DESC"), sa.text("id DESC")]
    )
