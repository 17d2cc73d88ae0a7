-- Projects, their environments, and the keys of each. What came before belongs to the default project.
create table projects (
    id          text collate "C" primary key,
    ref         text collate "C" not null,
    name        text not null,
    created_at  bigint not null
);

create unique index projects_by_ref on projects (ref);

insert into projects (id, ref, name, created_at) values ('proj_default', 'proj_default', 'Default', 0);

-- A branch is an environment of its own beside the one of type preview that it belongs to.
alter table environments add column project_id text collate "C" not null default 'proj_default';
alter table environments add column type text collate "C" not null default 'dev';
alter table environments add column branch text collate "C";
alter table environments add column archived_at bigint;

update environments set type = id;

insert into environments (id, concurrency_limit, created_at, type) values ('preview', 1000, 0, 'preview');

create unique index environments_by_project on environments (project_id, type, coalesce(branch, ''));

-- Every key is known by its digest. Root keys can be opened as well, because they sign public tokens.
create table api_keys (
    id              text collate "C" primary key,
    environment_id  text collate "C" not null references environments (id),
    kind            text not null,
    name            text not null,
    digest          text collate "C" not null,
    shown           text not null,
    sealed          text,
    scopes          text,
    created_at      bigint not null,
    expires_at      bigint,
    revoked_at      bigint
);

create unique index api_keys_by_digest on api_keys (digest);
create index api_keys_by_environment on api_keys (environment_id, id);

-- Public tokens that may be used a single time, and were. Kept until they expire by themselves.
create table used_tokens (
    digest      text collate "C" primary key,
    used_by     text not null,
    expires_at  bigint not null
);

create index used_tokens_by_expiry on used_tokens (expires_at);
