// Azurite, which tells of every blob that is created: `node azurite.js MAIN --blobPort N …`.
//
// Its access log has neither ETag nor length. So the log's format becomes one JSON line a created blob, and nothing else;
// and the process ends when its standard input does, so that it never outlives whoever started it.
//
// With --location it keeps what it has been given, but writes down every five seconds only where that is. So here nothing
// is acknowledged before that is written down: first of the bytes (extents), then of the blobs that consist of them.
process.stdin.resume().on('end', () => process.exit(0));
process.argv.splice(1, 1);
const staged = new Map(); // path → block id → bytes: a list of blocks says nothing of its length

const morgan = require(require.resolve('morgan', { paths: [process.argv[1]] }));
morgan.format('common', (_, request, response) => {
  const url = new URL(request.originalUrl, 'http://localhost');
  const [comp, length] = [url.searchParams.get('comp'), Number(request.headers['content-length'])];
  if (request.method !== 'PUT' || response.statusCode !== 201 || url.pathname.split('/').length < 4) return undefined;
  if (comp === 'block') {
    if (!staged.has(url.pathname)) staged.set(url.pathname, new Map());
    staged.get(url.pathname).set(url.searchParams.get('blockid'), length);
    return undefined;
  }
  if (comp !== null && comp !== 'blocklist') return undefined;
  const blocks = staged.get(url.pathname) ?? new Map();
  staged.delete(url.pathname);
  return JSON.stringify({
    path: url.pathname,
    api: comp === null ? 'PutBlob' : 'PutBlockList',
    eTag: response.getHeader('etag'),
    contentLength: comp === null ? length : listed(response).reduce((sum, id) => sum + (blocks.get(id) ?? 0), 0),
    contentType: request.headers['x-ms-blob-content-type'] ?? 'application/octet-stream',
    blobType: request.headers['x-ms-blob-type'] ?? 'BlockBlob',
    requestId: response.getHeader('x-ms-request-id'),
    clientRequestId: request.headers['x-ms-client-request-id'] ?? '',
  });
});

// The ids in a list of blocks, as Azurite has read it.
function listed(response) {
  const { latest = [], uncommitted = [] } = response.locals.azurite_blob_context.handlerParameters.blocks;
  return [...latest, ...uncommitted];
}

if (process.argv.includes('--location')) {
  const loki = require(require.resolve('lokijs', { paths: [process.argv[1]] }));
  const { saveDatabase } = loki.prototype;
  const databases = [];
  loki.prototype.saveDatabase = function (...all) { // called of each when Azurite begins
    if (!databases.includes(this)) databases.push(this);
    databases.sort((a, b) => b.filename.includes('extent') - a.filename.includes('extent'));
    return saveDatabase.apply(this, all);
  };
  const { ServerResponse } = require('http');
  const { end } = ServerResponse.prototype;
  ServerResponse.prototype.end = function (...all) {
    const save = ([first, ...others]) =>
      first ? first.saveDatabase((error) => (error ? this.destroy(error) : save(others))) : end.apply(this, all);
    save(this.statusCode < 300 && ['PUT', 'DELETE'].includes(this.req.method) ? databases : []);
    return this;
  };
}

require(process.argv[1]);
