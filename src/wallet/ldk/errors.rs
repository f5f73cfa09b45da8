//! ldk-node's errors in the port's words: once, exhaustively, never by their text.

use ldk_node::{BuildError, NodeError};

use super::WalletError;

/// What an error says of an act on the node. Where nothing can have happened the answer is definitive.
pub(super) fn translated(error: NodeError) -> WalletError {
    let unreachable = |why: &str| WalletError::Unreachable(why.to_owned());
    let internal = |why: &str| WalletError::Internal(why.to_owned());
    let refused = |why: &str| WalletError::Refused(why.to_owned());
    match error {
        NodeError::NotRunning => unreachable("the node is stopped"),
        NodeError::AlreadyRunning => internal("the node runs already"),
        // The world beside the node: may pass.
        NodeError::ConnectionFailed => unreachable("the other node can't be reached"),
        NodeError::FeerateEstimationUpdateFailed | NodeError::FeerateEstimationUpdateTimeout => {
            unreachable("the chain source gives no fee rates")
        }
        NodeError::WalletOperationTimeout
        | NodeError::TxSyncFailed
        | NodeError::TxSyncTimeout
        | NodeError::GossipUpdateFailed
        | NodeError::GossipUpdateTimeout => unreachable("the chain source does not answer"),
        NodeError::LiquidityRequestFailed => {
            unreachable("the liquidity provider did not answer, or offers nothing for this amount")
        }
        // The node itself, perhaps half way through.
        NodeError::PersistenceFailed => internal("the node could not write its storage"),
        NodeError::WalletOperationFailed => internal("the node's wallet on the chain failed"),
        NodeError::DuplicatePayment => internal("the node has a payment to that hash under way"),
        // Nothing was done.
        NodeError::InsufficientFunds => WalletError::InsufficientFunds,
        NodeError::PaymentSendingFailed => {
            WalletError::PaymentFailed("no route to the payee within the fee limit".to_owned())
        }
        NodeError::InvalidInvoice => WalletError::BadInvoice("the node can't pay it".to_owned()),
        NodeError::LiquidityFeeTooHigh => refused("opening a channel for this amount would cost more than the limit"),
        NodeError::LiquiditySourceUnavailable => refused("no liquidity provider is configured"),
        NodeError::OnchainTxCreationFailed | NodeError::OnchainTxSigningFailed => {
            refused("the node could not make a transaction of it")
        }
        NodeError::InvoiceCreationFailed => refused("the node could not make an invoice of it"),
        NodeError::ChannelCreationFailed => {
            refused("the channel can't be opened: the size or the other node's terms do not fit")
        }
        NodeError::ChannelClosingFailed => refused("the channel can't be closed like this now"),
        NodeError::ChannelSplicingFailed | NodeError::ChannelConfigUpdateFailed => {
            refused("the channel can't be changed like this now")
        }
        NodeError::InvalidAddress
        | NodeError::InvalidSocketAddress
        | NodeError::InvalidPublicKey
        | NodeError::InvalidNodeId
        | NodeError::InvalidNodeAlias
        | NodeError::InvalidUri
        | NodeError::UriParameterParsingFailed => refused("the address is not one the node can use"),
        NodeError::InvalidAmount | NodeError::InvalidQuantity | NodeError::InvalidFeeRate => {
            refused("the amount is not one the node can use")
        }
        NodeError::InvalidPaymentHash
        | NodeError::InvalidPaymentId
        | NodeError::InvalidPaymentPreimage
        | NodeError::InvalidPaymentSecret => refused("the node knows no such payment"),
        NodeError::InvalidNetwork => refused("it is for another network"),
        NodeError::InvalidChannelId => WalletError::NotFound,
        // Of features that are not used.
        NodeError::InvoiceRequestCreationFailed
        | NodeError::OfferCreationFailed
        | NodeError::RefundCreationFailed
        | NodeError::InvalidCustomTlvs
        | NodeError::ProbeSendingFailed
        | NodeError::InvalidSecretKey
        | NodeError::InvalidOfferId
        | NodeError::InvalidOffer
        | NodeError::InvalidRefund
        | NodeError::InvalidDateTime
        | NodeError::UnsupportedCurrency
        | NodeError::InvalidBlindedPaths
        | NodeError::AsyncPaymentServicesDisabled => refused("the node does not do that"),
    }
}

/// Why a node that was made could not be started. Its chain source is asked then and there; `place` is where that is.
pub(super) fn not_started(error: NodeError, place: &str) -> WalletError {
    match error {
        NodeError::ConnectionFailed
        | NodeError::FeerateEstimationUpdateFailed
        | NodeError::FeerateEstimationUpdateTimeout
        | NodeError::WalletOperationTimeout
        | NodeError::TxSyncFailed
        | NodeError::TxSyncTimeout => {
            WalletError::Unreachable(format!("the chain source at {place} does not answer (wallet.ldk.chain_url)"))
        }
        error => translated(error),
    }
}

/// Why a node could not be made. Nothing was started.
pub(super) fn not_built(error: &BuildError) -> WalletError {
    let refused = |why: &str| WalletError::Refused(format!("the embedded node can't be opened: {why}"));
    match error {
        BuildError::NetworkMismatch => refused("its folder belongs to another network"),
        BuildError::InvalidListeningAddresses | BuildError::InvalidAnnouncementAddresses => {
            refused("its listening addresses are not usable")
        }
        BuildError::InvalidNodeAlias => refused("its alias is not usable"),
        BuildError::StoragePathAccessFailed | BuildError::KVStoreSetupFailed | BuildError::WriteFailed => {
            refused("its folder can't be written")
        }
        BuildError::ReadFailed | BuildError::InvalidChannelMonitor => refused(
            "what its folder holds can't be read; never go on with an older copy: other nodes would take the money",
        ),
        BuildError::WalletSetupFailed => {
            refused("its wallet on the chain does not fit the seed, or its folder is damaged")
        }
        BuildError::InvalidSystemTime => refused("the machine's clock is wrong"),
        BuildError::InvalidSeedBytes
        | BuildError::InvalidSeedFile
        | BuildError::RuntimeSetupFailed
        | BuildError::LoggerSetupFailed
        | BuildError::AsyncPaymentsConfigMismatch => refused("ldk-node refused its settings"),
    }
}
