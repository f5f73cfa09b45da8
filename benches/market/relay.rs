//! The relay between: the tests' own, which checks signatures, stores, sets TCP_NODELAY and drops nothing.

use anyhow::Result;
use coinop::testing::relay::TestRelay;

use crate::child;

/// Serves until the bench asks to end. Greets with its address.
pub(crate) fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let relay = TestRelay::start().await?;
        child::ready(&relay.url())?;
        child::asked_to_end().await;
        Ok(())
    })
}
