//! A connection: one question after the other, each within a limit of time. A question that is given up in the middle
//! takes the connection with it, so that nobody reads the rest of its answer.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row, Value};
use tokio::sync::Mutex;

use super::fault::MySqlFault;

/// An open connection.
pub(super) struct Session {
    /// Whoever asks takes it out, and puts it back when it is whole.
    connection: Mutex<Option<Conn>>,
    answer_limit: Duration,
    in_transaction: AtomicBool,
}

impl Session {
    pub(super) fn new(connection: Conn, answer_limit: Duration) -> Self {
        Self { connection: Mutex::new(Some(connection)), answer_limit, in_transaction: AtomicBool::new(false) }
    }

    /// Whether an earlier question broke it.
    pub(super) fn is_given_up(&self) -> bool {
        self.connection.try_lock().is_ok_and(|connection| connection.is_none())
    }

    /// Some statements at once, and the rows of each.
    pub(super) async fn query(&self, text: &str) -> Result<Vec<Vec<Row>>, MySqlFault> {
        let mut place = self.connection.lock().await;
        let mut connection = place.take().ok_or(MySqlFault::GivenUp)?;
        let answer = within(self.answer_limit, query(&mut connection, text)).await;
        if whole(&answer) {
            *place = Some(connection);
        }
        answer
    }

    /// A statement with values, and without rows.
    pub(super) async fn execute(&self, text: &str, values: Vec<Value>) -> Result<(), MySqlFault> {
        let mut place = self.connection.lock().await;
        let mut connection = place.take().ok_or(MySqlFault::GivenUp)?;
        let execution = async { Ok(connection.exec_drop(text, Params::Positional(values)).await?) };
        let answer = within(self.answer_limit, execution).await;
        if whole(&answer) {
            *place = Some(connection);
        }
        answer
    }

    /// Whether a transaction of the writer is under way, which another one would end.
    pub(super) fn is_in_transaction(&self) -> bool {
        self.in_transaction.load(Ordering::Relaxed)
    }

    /// Notes that one begins, or is over.
    pub(super) fn note_transaction(&self, under_way: bool) {
        self.in_transaction.store(under_way, Ordering::Relaxed);
    }

    /// Closes the connection, with what goes on in it.
    pub(super) async fn give_up(&self) {
        self.connection.lock().await.take();
    }
}

async fn query(connection: &mut Conn, text: &str) -> Result<Vec<Vec<Row>>, MySqlFault> {
    let mut result = connection.query_iter(text).await?;
    let mut sets = Vec::new();
    while !result.is_empty() {
        sets.push(result.collect().await?);
    }
    result.drop_result().await?;
    Ok(sets)
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, MySqlFault>>) -> Result<T, MySqlFault> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(MySqlFault::Silent(limit)))
}

fn whole<T>(answer: &Result<T, MySqlFault>) -> bool {
    answer.as_ref().err().is_none_or(MySqlFault::spares_connection)
}

/// The values of a row, taken out one after the other.
pub(super) struct Columns {
    row: Row,
    next: usize,
}

impl Columns {
    pub(super) fn new(row: Row) -> Self {
        Self { row, next: 0 }
    }

    fn next(&mut self) -> Option<Value> {
        self.next += 1;
        self.row.take(self.next - 1)
    }

    fn malformed(&self) -> MySqlFault {
        MySqlFault::Malformed { column: self.next - 1 }
    }

    /// A number; none for NULL.
    pub(super) fn number(&mut self) -> Result<Option<i64>, MySqlFault> {
        let number = match self.next() {
            Some(Value::NULL) => return Ok(None),
            Some(Value::Int(number)) => Some(number),
            Some(Value::UInt(number)) => i64::try_from(number).ok(),
            Some(Value::Bytes(digits)) => std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse().ok()),
            _ => None,
        };
        number.map(Some).ok_or_else(|| self.malformed())
    }

    /// A number, 0 for NULL.
    pub(super) fn number_or_zero(&mut self) -> Result<i64, MySqlFault> {
        Ok(self.number()?.unwrap_or_default())
    }

    /// Bytes; none for NULL.
    pub(super) fn bytes(&mut self) -> Result<Bytes, MySqlFault> {
        match self.next() {
            Some(Value::NULL) => Ok(Bytes::new()),
            Some(Value::Bytes(bytes)) => Ok(bytes.into()),
            _ => Err(self.malformed()),
        }
    }

    /// Text; empty for NULL.
    pub(super) fn text(&mut self) -> Result<String, MySqlFault> {
        Ok(String::from_utf8_lossy(&self.bytes()?).into_owned())
    }
}
