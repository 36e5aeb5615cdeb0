//! Many writes for one key, side by side.

use futures_util::future::join_all;

use super::Failure;

/// Writes that are under way at once for one key. More would only wait for each other in the API.
const AT_ONCE_MAX: usize = 128;

/// Does something `count` times, 1 at first, then 2, 4 and so on side by side: what the API refuses to all isn't asked
/// for hundreds of times. Ends after the first group of which something failed; says what was done, and what failed first.
pub async fn slow_start<T, F>(count: usize, call: impl Fn(usize) -> F) -> (Vec<T>, Option<Failure>)
where
    F: Future<Output = Result<T, Failure>>,
{
    let (mut done, mut begun, mut size) = (Vec::with_capacity(count), 0, 1);
    while begun < count {
        let group = begun..count.min(begun + size);
        begun = group.end;
        size = (size * 2).min(AT_ONCE_MAX);
        let mut failed = None;
        for outcome in join_all(group.map(&call)).await {
            match outcome {
                Ok(outcome) => done.push(outcome),
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        if failed.is_some() {
            return (done, failed);
        }
    }
    (done, None)
}

/// Does something for each, some side by side; a failure doesn't keep it from the others. Says what was done, and what
/// failed first.
pub async fn each<I, T, F>(items: Vec<I>, call: impl Fn(I) -> F) -> (Vec<T>, Option<Failure>)
where
    F: Future<Output = Result<T, Failure>>,
{
    let (mut done, mut failed) = (Vec::with_capacity(items.len()), None);
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        for outcome in join_all(items.by_ref().take(AT_ONCE_MAX).map(&call)).await {
            match outcome {
                Ok(outcome) => done.push(outcome),
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
    }
    (done, failed)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn groups_grow_until_one_fails() {
        let asked = RefCell::new(Vec::new());
        let call = |at: usize| {
            asked.borrow_mut().push(at);
            async move { if at == 4 { Err(Failure::other("full")) } else { Ok(at) } }
        };
        let (done, failed) = slow_start(100, call).await;
        assert_eq!(*asked.borrow(), [0, 1, 2, 3, 4, 5, 6], "1, 2 and 4");
        assert_eq!(done, [0, 1, 2, 3, 5, 6]);
        assert_eq!(failed.expect("one failed").to_string(), "full");
        let (done, failed) = slow_start(1000, async |at| Ok(at)).await;
        assert!(done.len() == 1000 && failed.is_none());
    }

    #[tokio::test]
    async fn each_is_tried() {
        let call = async |at: usize| if at == 0 { Err(Failure::other("no")) } else { Ok(at) };
        let (done, failed) = each((0..300).collect(), call).await;
        assert!(done.len() == 299 && failed.is_some());
    }
}
