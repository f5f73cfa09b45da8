//! Long-lived tasks: named, owned, ended together.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

/// The long-lived tasks of a process. Each gets the token that ends them all.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<&'static str>,
    shutdown: CancellationToken,
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that ends them.
    pub fn shutdown_token(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Starts a task. It must end soon after the token is cancelled.
    pub fn spawn<F, T>(&mut self, name: &'static str, task: F)
    where
        F: FnOnce(CancellationToken) -> T,
        T: Future<Output = ()> + Send + 'static,
    {
        let task = task(self.shutdown.clone());
        self.set.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits until a task ends by itself, which none should: names it.
    pub async fn first_to_end(&mut self) -> Option<String> {
        match self.set.join_next().await? {
            Ok(name) => Some(format!("the {name} task ended by itself")),
            Err(problem) if problem.is_panic() => Some("a task panicked (see above)".into()),
            Err(_) => Some("a task was cancelled".into()),
        }
    }

    /// Ends all tasks; those that do not end within `grace` are cut off.
    pub async fn end(mut self, grace: Duration) {
        self.shutdown.cancel();
        let all = async {
            while let Some(ended) = self.set.join_next().await {
                match ended {
                    Ok(name) => debug!("The {name} task ended"),
                    Err(problem) => error!(%problem, "A task did not end well"),
                }
            }
        };
        if tokio::time::timeout(grace, all).await.is_err() {
            warn!(grace_s = grace.as_secs(), "Tasks that did not end in time are cut off");
            self.set.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_task_hears_of_the_end() {
        let mut tasks = Tasks::new();
        let (tell, mut told) = tokio::sync::mpsc::channel(2);
        for name in ["one", "two"] {
            let tell = tell.clone();
            tasks.spawn(name, |shutdown| async move {
                shutdown.cancelled().await;
                tell.send(name).await.unwrap();
            });
        }
        drop(tell);
        tasks.end(Duration::from_secs(10)).await;
        let mut names = vec![told.recv().await.unwrap(), told.recv().await.unwrap()];
        names.sort_unstable();
        assert_eq!((names, told.recv().await), (vec!["one", "two"], None));
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_is_cut_off() {
        let mut tasks = Tasks::new();
        tasks.spawn("stubborn", |_| std::future::pending());
        tasks.end(Duration::from_millis(1)).await;
    }
}
