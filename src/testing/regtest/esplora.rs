//! The simulated chain behind Esplora's HTTP interface, on loopback: what an unmodified node takes for a block explorer.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{DefaultBodyLimit, Path, Request, State as Shared};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use axum::{Router, serve};
use bitcoin::consensus::encode::{deserialize_hex, serialize, serialize_hex};
use bitcoin::hashes::sha256;
use bitcoin::{Address, Block, BlockHash, Network, OutPoint, Transaction, Txid};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::answers::{self, Page};
use super::chain::Chain;
use super::state::State;

/// The most a posted transaction may have: the largest standard one (100 kvB) is 800 kB of hexadecimal at worst.
const MOST_BODY: usize = 1_000_000;

/// What goes wrong with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EsploraFault {
    /// Nothing.
    #[default]
    None,
    /// Every request is answered with this status, as by a server (or a proxy before it) in trouble.
    Answers(u16),
    /// Requests are taken and never answered.
    Silent,
}

/// A running server. It ends, and its connections with it, when dropped.
#[derive(Debug)]
pub struct EsploraServer {
    address: SocketAddr,
    fault: Arc<Mutex<EsploraFault>>,
    _stop: DropGuard,
}

#[derive(Clone)]
struct Doorkeeper {
    fault: Arc<Mutex<EsploraFault>>,
    stop: CancellationToken,
}

impl EsploraServer {
    /// Serves `chain` on a free port of the loopback interface.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub async fn start(chain: Chain) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let fault = Arc::new(Mutex::new(EsploraFault::None));
        let stop = CancellationToken::new();
        let doorkeeper = Doorkeeper { fault: Arc::clone(&fault), stop: stop.clone() };
        let router = routes(chain)
            .layer(DefaultBodyLimit::max(MOST_BODY))
            .layer(middleware::from_fn_with_state(doorkeeper, let_in));
        let ended = stop.clone().cancelled_owned();
        tokio::spawn(async move { serve(listener, router).with_graceful_shutdown(ended).await });
        Ok(Self { address, fault, _stop: stop.drop_guard() })
    }

    /// Its base address, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this goes wrong.
    pub fn set_fault(&self, fault: EsploraFault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

async fn let_in(Shared(doorkeeper): Shared<Doorkeeper>, request: Request, next: Next) -> Response {
    let fault = *doorkeeper.fault.lock().unwrap_or_else(PoisonError::into_inner);
    match fault {
        EsploraFault::None => next.run(request).await,
        EsploraFault::Answers(status) => {
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response()
        }
        EsploraFault::Silent => {
            doorkeeper.stop.cancelled().await;
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

/// An answer other than 200.
type Refusal = (StatusCode, String);

fn routes(chain: Chain) -> Router {
    Router::new()
        .route("/blocks/tip/hash", get(async |Shared(chain): Shared<Chain>| chain.tip().to_string()))
        .route("/blocks/tip/height", get(async |Shared(chain): Shared<Chain>| chain.height().to_string()))
        .route("/block-height/{height}", get(block_at))
        .route("/blocks", get(async |Shared(chain): Shared<Chain>| Json(answers::blocks(&chain.lock(), None))))
        .route("/blocks/{height}", get(blocks))
        .route("/block/{hash}", get(block))
        .route("/block/{hash}/{part}", get(block_part))
        .route("/tx", post(broadcast))
        .route("/tx/{txid}", get(transaction))
        .route("/tx/{txid}/{part}", get(transaction_part))
        .route("/tx/{txid}/outspend/{vout}", get(outspend))
        .route("/scripthash/{hash}/txs", get(script_history))
        .route("/scripthash/{hash}/txs/{page}", get(script_history_page))
        .route("/scripthash/{hash}/txs/chain/{last}", get(script_history_after))
        .route("/address/{address}/txs", get(address_history))
        .route("/fee-estimates", get(async || Json(answers::fee_estimates())))
        .with_state(chain)
}

async fn block_at(Shared(chain): Shared<Chain>, Path(height): Path<u32>) -> Result<String, Refusal> {
    chain.lock().block_at(height).map(|block| block.block_hash().to_string()).ok_or_else(not_found)
}

async fn blocks(Shared(chain): Shared<Chain>, Path(height): Path<u32>) -> Json<Value> {
    Json(answers::blocks(&chain.lock(), Some(height)))
}

async fn block(Shared(chain): Shared<Chain>, Path(hash): Path<String>) -> Result<Json<Value>, Refusal> {
    let hash: BlockHash = read(&hash)?;
    let state = chain.lock();
    let height = state.height_of(&hash).ok_or_else(not_found)?;
    let block = state.block_at(height).ok_or_else(not_found)?;
    Ok(Json(answers::block(&state, height, block)))
}

async fn block_part(
    Shared(chain): Shared<Chain>,
    Path((hash, part)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let hash: BlockHash = read(&hash)?;
    let state = chain.lock();
    if part == "status" {
        return Ok(Json(answers::block_status(&state, state.height_of(&hash))).into_response());
    }
    let block = state.block(&hash).ok_or_else(not_found)?;
    match part.as_str() {
        "header" => Ok(serialize_hex(&block.header).into_response()),
        "raw" => Ok(serialize(block).into_response()),
        "txids" => Ok(Json(txids(block)).into_response()),
        _ => Err(not_found()),
    }
}

fn txids(block: &Block) -> Vec<Txid> {
    block.txdata.iter().map(Transaction::compute_txid).collect()
}

async fn broadcast(Shared(chain): Shared<Chain>, body: String) -> Result<String, Refusal> {
    let tx: Transaction = deserialize_hex(body.trim()).map_err(bad_request)?;
    chain.broadcast(&tx).map(|txid| txid.to_string()).map_err(bad_request)
}

async fn transaction(Shared(chain): Shared<Chain>, Path(txid): Path<String>) -> Result<Json<Value>, Refusal> {
    let txid: Txid = read(&txid)?;
    let state = chain.lock();
    let tx = state.transaction(&txid).ok_or_else(not_found)?;
    Ok(Json(answers::transaction(&state, tx)))
}

async fn transaction_part(
    Shared(chain): Shared<Chain>,
    Path((txid, part)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let txid: Txid = read(&txid)?;
    let state = chain.lock();
    let tx = state.transaction(&txid).ok_or_else(not_found)?;
    let found = match part.as_str() {
        "raw" => Some(serialize(tx).into_response()),
        "hex" => Some(serialize_hex(tx).into_response()),
        "status" => Some(Json(answers::status(&state, &txid)).into_response()),
        "merkle-proof" => answers::merkle_proof(&state, &txid).map(|proof| Json(proof).into_response()),
        "merkleblock-proof" => answers::merkle_block(&state, &txid).map(|block| serialize_hex(&block).into_response()),
        "outspends" => Some(Json(outspends(&state, tx)).into_response()),
        _ => None,
    };
    found.ok_or_else(not_found)
}

fn outspends(state: &State, tx: &Transaction) -> Vec<Value> {
    let txid = tx.compute_txid();
    (0..).zip(&tx.output).map(|(vout, _)| answers::outspend(state, &OutPoint::new(txid, vout))).collect()
}

async fn outspend(
    Shared(chain): Shared<Chain>,
    Path((txid, vout)): Path<(String, u32)>,
) -> Result<Json<Value>, Refusal> {
    let outpoint = OutPoint::new(read(&txid)?, vout);
    Ok(Json(answers::outspend(&chain.lock(), &outpoint)))
}

async fn script_history(Shared(chain): Shared<Chain>, Path(hash): Path<String>) -> Result<Json<Value>, Refusal> {
    Ok(Json(answers::history(&chain.lock(), &read(&hash)?, Page::First)))
}

async fn script_history_page(
    Shared(chain): Shared<Chain>,
    Path((hash, page)): Path<(String, String)>,
) -> Result<Json<Value>, Refusal> {
    let page = match page.as_str() {
        "mempool" => Page::Waiting,
        "chain" => Page::Confirmed,
        _ => return Err(not_found()),
    };
    Ok(Json(answers::history(&chain.lock(), &read(&hash)?, page)))
}

async fn script_history_after(
    Shared(chain): Shared<Chain>,
    Path((hash, last)): Path<(String, String)>,
) -> Result<Json<Value>, Refusal> {
    let page = Page::After(read(&last)?);
    Ok(Json(answers::history(&chain.lock(), &read(&hash)?, page)))
}

async fn address_history(Shared(chain): Shared<Chain>, Path(address): Path<String>) -> Result<Json<Value>, Refusal> {
    let address: Address<_> = read(&address)?;
    let address = address.require_network(Network::Regtest).map_err(bad_request)?;
    let script: sha256::Hash = super::state::script_hash(&address.script_pubkey());
    Ok(Json(answers::history(&chain.lock(), &script, Page::First)))
}

fn read<T: FromStr>(text: &str) -> Result<T, Refusal>
where
    T::Err: Display,
{
    text.parse().map_err(bad_request)
}

fn bad_request(why: impl Display) -> Refusal {
    (StatusCode::BAD_REQUEST, why.to_string())
}

fn not_found() -> Refusal {
    (StatusCode::NOT_FOUND, "not found".to_owned())
}
