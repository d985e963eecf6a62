//! The bounded queues in front of the store.

use std::sync::mpsc::channel;
use std::time::Duration;

use super::support::TestApp;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_hang_up_while_they_wait_leave_the_read_queue_as_it_was() {
    let app = TestApp::with_config("[store]\nreaders = 1\nread_queue = 2");
    let store = app.app.store();
    let (release, released) = channel::<()>();
    let mut busy = Box::pin(store.read(move |_| {
        let _ = released.recv();
        Ok(())
    }));
    let patience = Duration::from_millis(5);
    assert!(tokio::time::timeout(patience, &mut busy).await.is_err());
    for _ in 0..5 {
        // Each waits for the one connection and gives up.
        let waiting = store.read(|_| Ok(()));
        assert!(tokio::time::timeout(patience, waiting).await.is_err());
    }
    drop(release);
    busy.await.unwrap();
    store.read(|_| Ok(())).await.unwrap();
}
