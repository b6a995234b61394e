"""Makes months ahead and drops old ones by functions of the owner, and adds legal holds, which keep months."""

import sqlalchemy as sa
from alembic import op

from kit.migrations import protect, role_of

revision = "202611221420"
down_revision = "202611221410"
branch_labels = None
depends_on = None

# The service owns no table, so it can neither make nor drop one. These functions run as their owner and do nothing
# else; each checks its own argument, and names everything with its schema.
FUNCTIONS = {
    "audit.make_months(integer)": """
CREATE FUNCTION audit.make_months(ahead integer) RETURNS SETOF text
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  months date[];
  month date;
  moving bigint;
  moved bigint;
BEGIN
  IF ahead NOT BETWEEN 0 AND 24 THEN
    RAISE EXCEPTION 'between 0 and 24 months are made ahead, not %', ahead USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- One process at a time; the others find the months made.
  IF NOT pg_try_advisory_xact_lock(hashtext('audit.months')) THEN
    RETURN;
  END IF;
  -- Those ahead, and those of entries that came when there was no month for them. What a wrong clock dated further
  -- ahead waits until its month is near.
  SELECT array_agg(found.at::date ORDER BY found.at) INTO months FROM (
    SELECT generate_series(0, ahead) * interval '1 month' + date_trunc('month', now() AT TIME ZONE 'UTC') AS at
    UNION
    SELECT date_trunc('month', to_timestamp(('x' || left(replace(d.id::text, '-', ''), 12))::bit(48)::bigint / 1000.0)
                               AT TIME ZONE 'UTC')
    FROM audit.audit_logs_default d
  ) AS found
  WHERE found.at <= now() AT TIME ZONE 'UTC' + ahead * interval '1 month'
    AND to_regclass(format('audit.%I', 'audit_logs_' || to_char(found.at, 'YYYY_MM'))) IS NULL;
  IF months IS NULL THEN
    RETURN;
  END IF;
  SELECT count(*) INTO moving FROM audit.audit_logs_default d
  WHERE date_trunc('month', to_timestamp(('x' || left(replace(d.id::text, '-', ''), 12))::bit(48)::bigint / 1000.0)
                            AT TIME ZONE 'UTC') = ANY (months);
  IF moving > 0 THEN
    -- PostgreSQL adds no month of which the default partition holds entries, and nothing deletes entries: so the
    -- partition itself leaves, all its entries are added to the log again, and then it goes.
    ALTER TABLE audit.audit_logs DETACH PARTITION audit.audit_logs_default;
    ALTER TABLE audit.audit_logs_default RENAME TO audit_logs_leaving;
  END IF;
  FOREACH month IN ARRAY months LOOP
    PERFORM audit.add_partition(
      'audit_logs_' || to_char(month, 'YYYY_MM'),
      format('FOR VALUES FROM (%L) TO (%L)', audit.first_id(month), audit.first_id((month + interval '1 month')::date))
    );
    RETURN NEXT 'audit_logs_' || to_char(month, 'YYYY_MM');
  END LOOP;
  IF moving > 0 THEN
    PERFORM audit.add_partition('audit_logs_default', 'DEFAULT');
    SELECT count(*) INTO moving FROM audit.audit_logs_leaving;
    INSERT INTO audit.audit_logs SELECT * FROM audit.audit_logs_leaving;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> moving THEN
      RAISE EXCEPTION '% of % entries were moved', moved, moving;
    END IF;
    DROP TABLE audit.audit_logs_leaving;
  END IF;
END $$
""",
    "audit.drop_month(date, integer)": """
CREATE FUNCTION audit.drop_month(month date, keep integer)
RETURNS TABLE (tenant_id uuid, entries bigint, first_index bigint, last_index bigint)
LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  partition text := 'audit_logs_' || to_char(month, 'YYYY_MM');
  found bigint;
  told jsonb;
BEGIN
  IF keep < 3 OR month <> date_trunc('month', month)
     OR month + (keep + 1) * interval '1 month' > now() AT TIME ZONE 'UTC' THEN
    RAISE EXCEPTION 'a month is dropped whole, and after three months at the earliest, not % after %', month, keep
    USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF NOT pg_try_advisory_xact_lock(hashtext('audit.months')) THEN
    RAISE EXCEPTION 'another process keeps the months' USING ERRCODE = 'lock_not_available';
  END IF;
  IF to_regclass(format('audit.%I', partition)) IS NULL THEN
    RETURN;
  END IF;
  -- No hold comes or goes until this is decided.
  LOCK TABLE audit.legal_holds IN SHARE MODE;
  EXECUTE format(
    'SELECT count(*) FROM audit.legal_holds h WHERE h.release_time IS NULL AND EXISTS (
       SELECT FROM audit.%I p WHERE p.tenant_id = h.tenant_id
         AND p.occurred_at >= coalesce(h.start_time, ''-infinity'')
         AND p.occurred_at < coalesce(h.end_time, ''infinity''))', partition) INTO found;
  IF found > 0 THEN
    RAISE EXCEPTION '% stays: legal holds: %', partition, found USING ERRCODE = 'restrict_violation';
  END IF;
  EXECUTE format(
    'SELECT count(*) FROM audit.%I p
     LEFT JOIN audit.tree_leaves l ON l.tenant_id = p.tenant_id AND l.id = p.id
     LEFT JOIN (SELECT c.tenant_id, max(c.tree_size) AS size FROM audit.checkpoints c GROUP BY 1) AS signed
       ON signed.tenant_id = p.tenant_id
     WHERE l.leaf_index IS NULL OR signed.size IS NULL OR l.leaf_index >= signed.size', partition) INTO found;
  IF found > 0 THEN
    RAISE EXCEPTION '% stays: entries that no signed checkpoint covers: %', partition, found
    USING ERRCODE = 'restrict_violation';
  END IF;
  EXECUTE format(
    'SELECT coalesce(jsonb_agg(t), ''[]'') FROM (
       SELECT p.tenant_id, count(*) AS entries, min(l.leaf_index) AS first_index, max(l.leaf_index) AS last_index
       FROM audit.%I p JOIN audit.tree_leaves l ON l.tenant_id = p.tenant_id AND l.id = p.id GROUP BY 1) AS t',
    partition) INTO told;
  EXECUTE format('ALTER TABLE audit.audit_logs DETACH PARTITION audit.%I', partition);
  EXECUTE format('SELECT count(*) FROM audit.%I', partition) INTO found;
  IF found <> (SELECT coalesce(sum(t.entries), 0) FROM jsonb_to_recordset(told) AS t (entries bigint)) THEN
    RAISE EXCEPTION '% stays: entries came meanwhile', partition USING ERRCODE = 'restrict_violation';
  END IF;
  EXECUTE format('DROP TABLE audit.%I', partition);
  RETURN QUERY SELECT t.* FROM jsonb_to_recordset(told)
    AS t (tenant_id uuid, entries bigint, first_index bigint, last_index bigint);
END $$
""",
}
# Only the functions above call these, as the owner.
PARTS = {
    "audit.first_id(date)": """
CREATE FUNCTION audit.first_id(month date) RETURNS uuid
LANGUAGE sql STRICT IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT rpad(lpad(to_hex((extract(epoch FROM month) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$
""",
    "audit.add_partition(text, text)": """
CREATE FUNCTION audit.add_partition(name text, bounds text) RETURNS void
LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- Attached, because that lets readers and writers of other partitions go on, where CREATE … PARTITION OF does not.
  EXECUTE format('CREATE TABLE audit.%I (LIKE audit.audit_logs INCLUDING DEFAULTS)', name);
  EXECUTE format('ALTER TABLE audit.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
  EXECUTE format(
    'CREATE POLICY tenant ON audit.%I FOR ALL USING (tenant_id = current_setting(''app.tenant_id'')::uuid)
     WITH CHECK (tenant_id = current_setting(''app.tenant_id'')::uuid)', name);
  EXECUTE format(
    'CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON audit.%I
     FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change()', name);
  EXECUTE format('ALTER TABLE audit.audit_logs ATTACH PARTITION audit.%I %s', name, bounds);
END $$
""",
}


def upgrade() -> None:
    create_legal_holds()
    op.add_column(
        "subject_keys", sa.Column("condemned_at", sa.DateTime(timezone=True), nullable=True), schema="audit"
    )
    op.execute(f"GRANT UPDATE (condemned_at) ON audit.subject_keys TO {role_of('audit')}")
    for signature, text in (PARTS | FUNCTIONS).items():
        op.execute(text)
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
    for signature in FUNCTIONS:
        op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO {role_of('audit')}")


def downgrade() -> None:
    for signature in reversed(PARTS | FUNCTIONS):
        op.execute(f"DROP FUNCTION {signature}")
    op.drop_column("subject_keys", "condemned_at", schema="audit")
    op.drop_table("legal_holds", schema="audit")


def create_legal_holds() -> None:
    op.create_table(
        "legal_holds",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("creator_id", sa.Uuid(), nullable=False),
        sa.Column("releaser_id", sa.Uuid(), nullable=True),
        sa.Column("release_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.CheckConstraint("start_time < end_time", name=op.f("ck_legal_holds_range")),
        sa.CheckConstraint("(releaser_id IS NULL) = (release_time IS NULL)", name=op.f("ck_legal_holds_release")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_legal_holds"),
        schema="audit",
    )
    protect("audit", "legal_holds")
