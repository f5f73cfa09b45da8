//! What came of it, told at the end.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use crate::cli::identity::PublicIdentity;
use crate::cli::servers;
use crate::config::InferenceSettings;
use crate::daemon::inventory;

/// How long what does the work is asked for its models, which are told at the end.
const PATIENCE: Duration = Duration::from_secs(3);

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    pub(super) config: PathBuf,
    pub(super) keystore: PathBuf,
    pub(super) kept_identity: bool,
    pub(super) identity: Option<PublicIdentity>,
    /// What does the work; nothing when that is looked for at each start.
    pub(super) endpoints: Vec<Taken>,
    /// What a customer gets who names no model, as far as the endpoints tell.
    pub(super) default_model: Option<String>,
    /// What is odd about the servers that were named.
    pub(super) warnings: Vec<String>,
    pub(super) missing_to_serve: Vec<String>,
    #[serde(skip)]
    pub(super) inference: InferenceSettings,
}

/// An endpoint that was written down.
#[derive(Debug, Serialize)]
pub(super) struct Taken {
    /// Its name, and where it is.
    pub(super) endpoint: String,
    pub(super) backend: &'static str,
    pub(super) models: Vec<String>,
    /// Why it has none.
    pub(super) why: Option<String>,
}

impl Done {
    /// Asks the endpoints for their models. Whoever takes too long has not said.
    pub(super) async fn ask_what_was_taken(&mut self) {
        let Ok(stock) = timeout(PATIENCE, inventory::take(&self.inference)).await else { return };
        self.default_model = inventory::on_offer(&self.inference, &stock).first().map(|model| model.name.clone());
        for (taken, stock) in self.endpoints.iter_mut().zip(stock) {
            match stock.models {
                Ok(models) => taken.models = models.into_iter().map(|model| model.info.name).collect(),
                Err(why) => taken.why = Some(why),
            }
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        match &self.identity {
            Some(identity) => text.push_str(&identity.lines()),
            None => text.push_str(&format!("keystore  {} (was there, kept)\n", self.keystore.display())),
        }
        text.push_str(&format!("config    {}\n", self.config.display()));
        for Taken { endpoint, models, why, .. } in &self.endpoints {
            let what = match (why, &models[..]) {
                (Some(why), _) => why.clone(),
                (None, []) => "it has not said which models it has".into(),
                (None, models) => servers::some_of(models.iter().map(String::as_str)),
            };
            text.push_str(&format!("work      {endpoint}: {what}\n"));
        }
        if self.endpoints.is_empty() {
            text.push_str("work      what is found on this machine at each start\n");
        }
        if let Some(model) = &self.default_model {
            text.push_str(&format!("default   {model}, for customers who name no model\n"));
        }
        text.push_str("\nNext:\n");
        if !self.kept_identity {
            text.push_str("  coinop identity backup    write the words down; they are the identity and the money\n");
        }
        for missing in &self.missing_to_serve {
            text.push_str(&format!("  edit {}: {missing}\n", self.config.display()));
        }
        text.push_str("  coinop serve              start selling\n");
        text
    }
}
