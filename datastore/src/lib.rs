//! The datastore: bytes under keys, with a revision for each change, over a database that the operator chooses.
//!
//! It knows bytes, keys and revisions, and nothing of Kubernetes: it never parses a value. It has no actors either, and
//! no process-wide state; a program may open as many stores as it likes. What belongs together:
//!
//! * [`Backend`] is the contract, etcd's semantics in typed requests; [`AnyBackend`] is any store behind one type.
//! * [`Sqlite`] is the default store, a file in kine's layout; [`Memory`] is the reference, for tests.
//! * [`Dsn`] reads kine's datastore endpoints.
//! * [`Postgres`] and [`MySql`] are stores on servers, in kine's layouts too.
//! * [`Etcd`] is a store on an etcd cluster.
//! * [`Watcher`] follows changes from any revision that is not compacted.
//! * [`ExpiryQueue`] decides which keys have outlived their time; whoever uses it deletes them.
//!
//! A store blocks no thread of the event loop: SQLite runs on threads of its own, and answers through channels. What a
//! store does beside its callers' questions is handed out with it, threads as [`Body`], everything else as
//! [`Background`], so that whoever supervises it can end it; `open` is for those who have no supervisor. Two things are
//! left to the caller on purpose: deadlines (drop the future), and repeating what failed ([`StoreError::remedy`] says
//! what is worth trying).

mod backend;
mod background;
mod dsn;
mod error;
mod etcd;
mod expiry;
mod memory;
mod mysql;
mod postgres;
mod request;
mod sqlite;
mod table;
mod tls;
mod types;
mod watch;

pub use backend::{AnyBackend, Backend, BoxFuture};
pub use background::Background;
pub use dsn::{Dsn, DsnError, MySqlDsn, Password, PostgresDsn, ServerAddress, SqliteDsn};
pub use error::{Conflict, Op, Remedy, Source, StoreError};
pub use etcd::{Etcd, EtcdOptions, EtcdTls};
pub use expiry::ExpiryQueue;
pub use memory::Memory;
pub use mysql::{MySql, MySqlOptions};
pub use postgres::{Postgres, PostgresOptions};
pub use request::{
    Change, CompactResponse, Connections, CountRequest, CountResponse, GetRequest, GetResponse, ListRequest,
    ListResponse, Precondition, Status, WATCH_EVENTS_WAITING_DEFAULT, WatchRequest, WriteRequest, WriteResponse,
};
pub use sqlite::{Body, Sqlite, SqliteOptions};
pub use tls::TlsFiles;
pub use types::{Event, EventKind, Key, KeyRange, KeyValue, Revision, Ttl};
pub use watch::{WatchEnd, WatchMessage, Watcher};
