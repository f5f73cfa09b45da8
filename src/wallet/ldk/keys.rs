//! The node's key, and what is signed with it.
//!
//! The 64 bytes of the wallet's secret are the node's seed. Its master key (BIP 32) is the root of the money on the chain
//! (`m/84'/…`, BIP 84); that master key's private key is the seed of a second tree, LDK's own, whose `m/0'` is the node key.
//! `docs/identity.md` describes it for people who recover with other tools.

use std::fmt;

use bitcoin::NetworkKind;
use bitcoin::bip32::Xpriv;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use ldk_node::lightning::sign::KeysManager;
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, CreationError, InvoiceBuilder};

/// The key the node signs its invoices with. Secret, erased when dropped.
pub(super) struct NodeKey(SecretKey);

impl Drop for NodeKey {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.node_id())
    }
}

impl NodeKey {
    /// The node key of a wallet's 64 bytes, as ldk-node derives it: by LDK's own code, so that both never differ.
    pub(super) fn of(entropy: &[u8; 64]) -> Self {
        // The network only changes how an extended key is written, and none is.
        let mut master =
            Xpriv::new_master(NetworkKind::Main, entropy).expect("a seed without a master key is one in 2^127");
        // The times only make the keys of new channels unique; no channel is made with this one.
        let key = KeysManager::new(&master.private_key.secret_bytes(), 0, 0, true).get_node_secret_key();
        master.private_key.non_secure_erase();
        Self(key)
    }

    /// The node's public key, by which the network knows it.
    pub(super) fn node_id(&self) -> PublicKey {
        self.0.public_key(&Secp256k1::new())
    }

    /// The same invoice (hash, payment secret, amount, route hints, time) with at least `blocks` to go at the last hop
    /// (BOLT 11 `c`), signed anew. The secret of LDK's invoices does not fix that number from above, and LDK itself has no
    /// setting for it.
    pub(super) fn lengthen(
        &self,
        invoice: &Bolt11Invoice,
        description: Bolt11InvoiceDescription,
        blocks: u32,
    ) -> Result<Bolt11Invoice, CreationError> {
        let blocks = u64::from(blocks).max(invoice.min_final_cltv_expiry_delta());
        let mut builder = InvoiceBuilder::new(invoice.currency())
            .invoice_description(description)
            .payment_hash(*invoice.payment_hash())
            .payment_secret(*invoice.payment_secret())
            .duration_since_epoch(invoice.duration_since_epoch())
            .expiry_time(invoice.expiry_time())
            .min_final_cltv_expiry_delta(blocks)
            .basic_mpp();
        if let Some(msat) = invoice.amount_milli_satoshis() {
            builder = builder.amount_milli_satoshis(msat);
        }
        if let Some(payee) = invoice.payee_pub_key() {
            builder = builder.payee_pub_key(*payee);
        }
        for hint in invoice.route_hints() {
            builder = builder.private_route(hint);
        }
        builder.build_signed(|digest| Secp256k1::signing_only().sign_ecdsa_recoverable(digest, &self.0))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::bip32::ChildNumber;

    use super::*;
    use crate::identity::derivation::{Account, wallet_secret};
    use crate::identity::mnemonic::Phrase;

    #[test]
    fn the_node_follows_from_the_phrase() {
        // The example of `docs/identity.md`, computed by an independent program from the documented path. A change here would
        // lose somebody's channels.
        let words = "leader monkey parrot ring guide accident before fence cannon height naive bean";
        let seed = Phrase::parse(words).unwrap().seed();
        let secret = wallet_secret(&seed, Account::default());
        let node = "0340b9d3dbe5b49eed31821cb6736d1f8051aa066449ba1072da8b958c624fcd20";
        assert_eq!(NodeKey::of(secret.entropy()).node_id().to_string(), node);
    }

    #[test]
    fn another_tool_finds_the_node_key_by_bip32_alone() {
        let secp = Secp256k1::new();
        let master = Xpriv::new_master(NetworkKind::Main, &[7; 64]).unwrap();
        let second = Xpriv::new_master(NetworkKind::Main, &master.private_key.secret_bytes()).unwrap();
        let key = second.derive_priv(&secp, &[ChildNumber::from_hardened_idx(0).unwrap()]).unwrap();
        assert_eq!(NodeKey::of(&[7; 64]).node_id(), key.private_key.public_key(&secp));
    }

    #[test]
    fn debug_shows_the_public_key_alone() {
        let key = NodeKey::of(&[7; 64]);
        let secret = hex::encode(key.0.secret_bytes());
        assert_eq!(format!("{key:?}"), format!("NodeKey({})", key.node_id()));
        assert!(!format!("{key:?}").contains(&secret));
    }
}
