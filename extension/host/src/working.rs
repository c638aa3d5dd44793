//! Whose request the module is working for: what a trap ended the worker with is then known outside of it.

use std::pin::pin;
use std::task::Poll;

/// Does `work`, and tells before each of its steps for whom, and after it nobody. A step that traps leaves its word behind.
pub(crate) async fn working_for<F: Future>(client: Option<&str>, tell: impl Fn(Option<&str>), work: F) -> F::Output {
    let mut work = pin!(work);
    std::future::poll_fn(|context| -> Poll<F::Output> {
        tell(client);
        let state = work.as_mut().poll(context);
        tell(None);
        state
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures::FutureExt;
    use futures::channel::oneshot;

    use super::*;

    #[test]
    fn every_step_says_whose_it_is_and_a_pause_is_nobodys() {
        let said = RefCell::new(Vec::new());
        let now = || said.borrow().last().cloned().flatten();
        let (sender, receiver) = oneshot::channel::<()>();
        let steps = RefCell::new(Vec::new());
        let mut work = pin!(working_for(Some("https://x.org"), |client| said.borrow_mut().push(client.map(str::to_owned)), async {
            steps.borrow_mut().push(now());
            let _ = receiver.await;
            steps.borrow_mut().push(now());
        }));
        assert!(work.as_mut().now_or_never().is_none());
        assert_eq!(now(), None, "between its steps others work");
        sender.send(()).expect("somebody waits");
        assert!(work.as_mut().now_or_never().is_some());
        assert_eq!(*steps.borrow(), [Some("https://x.org".to_owned()), Some("https://x.org".to_owned())]);
        assert_eq!(now(), None);
    }
}
