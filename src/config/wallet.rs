//! The sections about money: which wallet, reached how, and what it may be used for.

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use url::Url;

use super::raw::{RawLdk, RawRefund, RawWallet};
use super::resolved::{
    ChainSource, ClnSettings, LdkSettings, LndSettings, LspSettings, RefundSettings, WalletSettings,
};
use super::secret::SecretRef;
use super::values::Values;

impl WalletSettings {
    /// The secrets it needs, each with its field.
    pub fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        match self {
            Self::None | Self::PlayMoney => Vec::new(),
            Self::Nwc { connection } => vec![("wallet.nwc.connection", connection)],
            Self::Ldk(ldk) => {
                let password = match &ldk.chain {
                    ChainSource::Bitcoind { password, .. } => Some(("wallet.ldk.bitcoind_password", password)),
                    ChainSource::Esplora(_) | ChainSource::Electrum(_) => None,
                };
                let token = ldk.lsp.as_ref().and_then(|lsp| lsp.token.as_ref());
                password.into_iter().chain(token.map(|token| ("wallet.ldk.lsp_token", token))).collect()
            }
            Self::Lnd(lnd) => vec![("wallet.lnd.macaroon", &lnd.macaroon)],
            Self::Cln(cln) => vec![("wallet.cln.rune", &cln.rune)],
            Self::Phoenixd { password, .. } => vec![("wallet.phoenixd.password", password)],
            Self::Lnbits { key, .. } => vec![("wallet.lnbits.key", key)],
        }
    }

    /// The certificate that is pinned, with its field.
    pub fn certificate(&self) -> Option<(&'static str, &std::path::Path)> {
        match self {
            Self::Lnd(lnd) => Some(("wallet.lnd.certificate", lnd.certificate.as_deref()?)),
            Self::Cln(cln) => Some(("wallet.cln.certificate", cln.certificate.as_deref()?)),
            _ => None,
        }
    }

    /// Whether it may be able to hold payments, as far as its kind tells. What a wallet really can is known once it is
    /// connected.
    pub fn may_hold(&self) -> bool {
        !matches!(self, Self::None | Self::Phoenixd { .. } | Self::Lnbits { .. })
    }
}

/// The address of a wallet's HTTP interface, and the reference to what opens it: both, or the problem is told.
fn served(values: &mut Values<'_>, url: (&str, &str), secret: (&str, &str)) -> Option<(Url, SecretRef)> {
    let found = (values.optional_url(url.0, url.1), values.secret(secret.0, secret.1));
    if url.1.is_empty() {
        values.problem(url.0, "the wallet's address is not named", "write it, such as \"https://127.0.0.1:8080\"");
    }
    if secret.1.is_empty() {
        values.problem(
            secret.0,
            "the wallet's secret is not named",
            "write \"env:NAME\" or \"file:/path\" and put it there",
        );
    }
    Some((found.0?, found.1?))
}

pub(super) fn wallet(values: &mut Values<'_>, raw: &RawWallet) -> WalletSettings {
    let words =
        [("none", 0), ("nwc", 1), ("fake", 2), ("ldk", 3), ("lnd", 4), ("cln", 5), ("phoenixd", 6), ("lnbits", 7)];
    let settings = match values.word("wallet.backend", &raw.backend, &words) {
        1 => {
            let connection = values.secret("wallet.nwc.connection", &raw.nwc.connection);
            if raw.nwc.connection.is_empty() {
                values.problem(
                    "wallet.nwc.connection",
                    "the wallet's connection string is not named",
                    "write \"env:COINOP_NWC\" or \"file:/path\" and put the string there",
                );
            }
            connection.map(|connection| WalletSettings::Nwc { connection })
        }
        2 if raw.i_know_this_is_play_money => Some(WalletSettings::PlayMoney),
        2 => {
            values.problem(
                "wallet.backend",
                "the fake wallet takes invented money: whoever pays with it gets work for nothing",
                "if that is what you want, set wallet.i_know_this_is_play_money = true; to earn, use \"nwc\" or \"ldk\"",
            );
            None
        }
        3 => ldk(values, &raw.ldk, &raw.network).map(|ldk| WalletSettings::Ldk(Box::new(ldk))),
        4 => {
            let lnd = &raw.lnd;
            served(values, ("wallet.lnd.url", &lnd.url), ("wallet.lnd.macaroon", &lnd.macaroon)).map(
                |(url, macaroon)| {
                    WalletSettings::Lnd(LndSettings { url, macaroon, certificate: values.path(&lnd.certificate) })
                },
            )
        }
        5 => {
            let cln = &raw.cln;
            served(values, ("wallet.cln.url", &cln.url), ("wallet.cln.rune", &cln.rune)).map(|(url, rune)| {
                WalletSettings::Cln(ClnSettings { url, rune, certificate: values.path(&cln.certificate) })
            })
        }
        6 => {
            let raw = &raw.phoenixd;
            served(values, ("wallet.phoenixd.url", &raw.url), ("wallet.phoenixd.password", &raw.password))
                .map(|(url, password)| WalletSettings::Phoenixd { url, password })
        }
        7 => {
            let raw = &raw.lnbits;
            served(values, ("wallet.lnbits.url", &raw.url), ("wallet.lnbits.key", &raw.key))
                .map(|(url, key)| WalletSettings::Lnbits { url, key })
        }
        _ => None,
    };
    settings.unwrap_or(WalletSettings::None)
}

pub(super) fn network(values: &mut Values<'_>, text: &str) -> Network {
    let words = [
        ("bitcoin", Network::Bitcoin),
        ("testnet4", Network::Testnet4),
        ("signet", Network::Signet),
        ("regtest", Network::Regtest),
    ];
    values.word("wallet.network", text, &words)
}

fn ldk(values: &mut Values<'_>, raw: &RawLdk, network: &str) -> Option<LdkSettings> {
    if network == "bitcoin" && !raw.i_accept_the_risk_on_mainnet {
        values.problem(
            "wallet.ldk.i_accept_the_risk_on_mainnet",
            "the embedded node would hold real money in a program that is always online: a stolen machine or phrase, a \
             lost storage folder or a long outage can cost all of it",
            "start with wallet.network = \"signet\"; to go on with real money, set it to true and keep little in the node",
        );
    }
    if network == "testnet4" {
        values.problem(
            "wallet.network",
            "the embedded node can't write invoices of testnet4",
            "use \"signet\" to try it out",
        );
    }
    let lsp = (!raw.lsp.is_empty()).then(|| {
        let parts = raw.lsp.split_once('@').and_then(|(node, address)| {
            let port = address.rsplit_once(':')?.1.parse::<u16>().ok()?;
            (port != 0).then_some((node.parse::<PublicKey>().ok()?, address.to_owned()))
        });
        if parts.is_none() {
            values.problem(
                "wallet.ldk.lsp",
                "it names no Lightning node",
                "write the node's id and address as the LSP gives them: 02…@host:9735",
            );
        }
        let token = values.secret("wallet.ldk.lsp_token", &raw.lsp_token);
        parts.map(|(node, address)| LspSettings { node, address, token })
    });
    for address in &raw.listen {
        if address.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
            values.problem(
                "wallet.ldk.listen",
                format!("'{}' is no socket address", address.chars().take(60).collect::<String>()),
                "write an address and a port, such as \"0.0.0.0:9735\"",
            );
        }
    }
    let alias = values.line("wallet.ldk.alias", &raw.alias, 32);
    if alias.as_ref().is_some_and(|alias| alias.len() > 32) {
        values.problem("wallet.ldk.alias", "it is longer than 32 bytes", "write a shorter name");
    }
    Some(LdkSettings {
        chain: chain(values, raw)?,
        folder: values.path(&raw.folder),
        listen: raw.listen.clone(),
        alias,
        lsp: lsp.flatten(),
    })
}

fn chain(values: &mut Values<'_>, raw: &RawLdk) -> Option<ChainSource> {
    let source =
        values.word("wallet.ldk.chain_source", &raw.chain_source, &[("esplora", 0), ("electrum", 1), ("bitcoind", 2)]);
    let (schemes, example): (&[&str], _) = match source {
        1 => (&["tcp", "ssl"], "ssl://electrum.example:50002"),
        _ => (&["http", "https"], if source == 2 { "http://127.0.0.1:8332" } else { "https://esplora.example/api" }),
    };
    let url = Url::parse(&raw.chain_url).ok().filter(|url| schemes.contains(&url.scheme()) && url.has_host());
    let Some(url) = url else {
        values.problem(
            "wallet.ldk.chain_url",
            "the embedded node has to see the chain, and this is no address of one",
            format!("write the address of your own {} server, such as \"{example}\"", raw.chain_source),
        );
        return None;
    };
    if source != 2 {
        return Some(if source == 1 { ChainSource::Electrum(url) } else { ChainSource::Esplora(url) });
    }
    let password = values.secret("wallet.ldk.bitcoind_password", &raw.bitcoind_password);
    if raw.bitcoind_password.is_empty() || raw.bitcoind_user.is_empty() {
        values.problem(
            "wallet.ldk.bitcoind_password",
            "bitcoind's RPC needs a user and a password",
            "set wallet.ldk.bitcoind_user, and here \"env:NAME\" or \"file:/path\" of the password",
        );
    }
    Some(ChainSource::Bitcoind {
        host: url.host_str()?.to_owned(),
        port: url.port_or_known_default()?,
        user: raw.bitcoind_user.clone(),
        password: password?,
    })
}

pub(super) fn refund(values: &mut Values<'_>, raw: &RawRefund) -> RefundSettings {
    RefundSettings {
        automatic_above: (!raw.automatic_above.is_empty())
            .then(|| values.amount("refund.automatic_above", &raw.automatic_above)),
        max_per_day: values.amount("refund.max_per_day", &raw.max_per_day),
        max_fee_percent: values.number("refund.max_fee_percent", raw.max_fee_percent, 0, 100),
    }
}
