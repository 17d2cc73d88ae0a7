-- What the SDK sends along with a run. A type says how a payload or output is written; null is application/json.
alter table runs add column payload_type text;
alter table runs add column output_type text;
alter table runs add column idempotency_key_shown text;
