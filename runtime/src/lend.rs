//! Resources that outlive the actor that uses them: a listening socket, the handle of a child process.
//!
//! The owner of the spec puts the resource into a [`Lend`] and gives a clone to the actor's arguments. Each incarnation
//! borrows it; when the incarnation is gone, however it ended, the resource lies in its place again for the next one.
//! So a restart refuses no connection and orphans no process.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use thiserror::Error;

use crate::cell::lock;

/// Why there is nothing to borrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LendError {
    /// Somebody has it. A bug: a successor starts only when its predecessor is gone.
    #[error("the resource is lent to somebody else")]
    Out,
    /// It was never put in, or its borrower found it unusable and kept it.
    #[error("there is no resource to lend")]
    Empty,
}

#[derive(Debug)]
enum Shelf<T> {
    Empty,
    In(T),
    Out,
}

/// The place of a resource. Clones share the place; the resource goes when the last clone and its borrower are gone.
pub struct Lend<T>(Arc<Mutex<Shelf<T>>>);

impl<T> Clone for Lend<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Lend<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lend")
    }
}

impl<T> Default for Lend<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Shelf::Empty)))
    }
}

impl<T> Lend<T> {
    /// A place with a resource in it.
    pub fn new(resource: T) -> Self {
        Self(Arc::new(Mutex::new(Shelf::In(resource))))
    }

    /// Takes the resource for as long as the loan lives.
    ///
    /// # Errors
    /// See [`LendError`].
    pub fn borrow(&self) -> Result<Loan<T>, LendError> {
        let shelf = &mut *lock(&self.0);
        match std::mem::replace(shelf, Shelf::Out) {
            Shelf::In(resource) => Ok(Loan { resource: Some(resource), home: self.clone() }),
            Shelf::Out => Err(LendError::Out),
            Shelf::Empty => {
                *shelf = Shelf::Empty;
                Err(LendError::Empty)
            }
        }
    }

    /// As [`Lend::borrow`], making the resource when there is none: a child process that is started once and adopted by
    /// each later incarnation.
    ///
    /// # Errors
    /// What `make` says, or `None` when somebody has the resource.
    pub fn borrow_or_make<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<Loan<T>, Option<E>> {
        match self.borrow() {
            Ok(loan) => Ok(loan),
            Err(LendError::Out) => Err(None),
            Err(LendError::Empty) => {
                let resource = make().map_err(Some)?;
                *lock(&self.0) = Shelf::Out;
                Ok(Loan { resource: Some(resource), home: self.clone() })
            }
        }
    }
}

/// A borrowed resource; goes back when it is dropped, also by a kill or a panic.
pub struct Loan<T> {
    resource: Option<T>,
    home: Lend<T>,
}

impl<T> fmt::Debug for Loan<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loan")
    }
}

impl<T> Loan<T> {
    /// Keeps the resource: it is used up, or unusable. The place is empty afterwards.
    pub fn keep(mut self) -> T {
        let Some(resource) = self.resource.take() else {
            unreachable!("a loan holds its resource until it is dropped")
        };
        resource
    }
}

impl<T> Deref for Loan<T> {
    type Target = T;
    fn deref(&self) -> &T {
        let Some(resource) = &self.resource else { unreachable!("a loan holds its resource until it is dropped") };
        resource
    }
}

impl<T> DerefMut for Loan<T> {
    fn deref_mut(&mut self) -> &mut T {
        let Some(resource) = &mut self.resource else { unreachable!("a loan holds its resource until it is dropped") };
        resource
    }
}

impl<T> Drop for Loan<T> {
    fn drop(&mut self) {
        *lock(&self.home.0) = self.resource.take().map_or(Shelf::Empty, Shelf::In);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_lent_once_and_comes_back_even_through_a_panic() {
        let lend = Lend::new(7);
        let loan = lend.borrow().expect("it is in");
        assert_eq!(lend.borrow().unwrap_err(), LendError::Out);
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = loan;
            panic!("drill");
        }));
        assert!(died.is_err());
        assert_eq!(*lend.borrow().expect("it came back"), 7);
    }

    #[test]
    fn a_kept_resource_leaves_an_empty_place_that_can_be_filled_again() {
        let lend = Lend::new(7);
        assert_eq!(lend.borrow().expect("it is in").keep(), 7);
        assert_eq!(lend.borrow().unwrap_err(), LendError::Empty);
        assert_eq!(lend.borrow_or_make(|| Err::<i32, _>("no")).unwrap_err(), Some("no"));
        let loan = lend.borrow_or_make(|| Ok::<_, ()>(8)).expect("it is made");
        assert_eq!(lend.borrow_or_make(|| Ok::<_, ()>(9)).unwrap_err(), None);
        drop(loan);
        assert_eq!(*lend.borrow().expect("it is in"), 8);
    }
}
