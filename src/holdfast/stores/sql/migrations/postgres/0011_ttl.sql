-- The ttl as the caller wrote it, such as "24h", which is told again; null where it was a number or its task's.
alter table runs add column ttl_shown text;
