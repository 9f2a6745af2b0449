using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Net;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using System.Threading;
using System.Threading.Tasks;

namespace Shotline.Example
{
    /// <summary>The gateway said no, or gave no answer in time.</summary>
    public sealed class ShotlineException : Exception
    {
        public ShotlineException(string message, int status = 0, JsonElement problem = default) : base(message)
        {
            Status = status;
            Problem = problem;
        }

        /// <summary>The answer's status; 0 where there was no answer.</summary>
        public int Status { get; }

        /// <summary>The answer, where it is problem+json.</summary>
        public JsonElement Problem { get; }
    }

    /// <summary>What the line is told of an image.</summary>
    public sealed class Decision
    {
        public Decision(string code, string reason, string label, double probability, int version)
        {
            Code = code;
            Reason = reason;
            Label = label;
            Probability = probability;
            Version = version;
        }

        /// <summary>ok, ng or undecidable.</summary>
        public string Code { get; }

        /// <summary>Why, a word of the list in docs/decisions.md; null where it is not known.</summary>
        public string Reason { get; }

        public string Label { get; }

        public double Probability { get; }

        /// <summary>The number of the version that answered.</summary>
        public int Version { get; }
    }

    /// <summary>
    /// A connection to a gateway. Make one and keep it: its connections stay open, which saves
    /// milliseconds on every request.
    /// </summary>
    public sealed class ShotlineClient : IDisposable
    {
        private const int FilesInARequest = 32;
        private const long BytesInARequest = 64L * 1024 * 1024;
        private const int Tries = 5;
        private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(100);

        // For the way to the gateway and back. What it is given for its own work is less than what
        // is waited for its answer, else every late answer would look like a broken connection.
        private static readonly TimeSpan Network = TimeSpan.FromMilliseconds(50);

        private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

        // The answer comes when all images are decoded, and behind the uploads of others.
        private static readonly TimeSpan UploadPatience = TimeSpan.FromMinutes(10);

        private static readonly JsonElement Nothing = JsonDocument.Parse("{}").RootElement.Clone();

        private readonly HttpClient http;

        /// <param name="address">Such as http://127.0.0.1:8000.</param>
        /// <param name="key">An API key.</param>
        public ShotlineClient(string address, string key)
        {
            var handler = new SocketsHttpHandler
            {
                ConnectTimeout = TimeSpan.FromSeconds(5),
                // Names of images are in any language; by default .NET sends ASCII alone.
                RequestHeaderEncodingSelector = (name, request) => Encoding.UTF8,
            };
            http = new HttpClient(handler)
            {
                BaseAddress = new Uri(address.TrimEnd('/') + "/"),
                Timeout = Timeout.InfiniteTimeSpan, // each call has a time of its own
            };
            http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", key);
        }

        public void Dispose()
        {
            http.Dispose();
        }

        /// <summary>
        /// Returns the decision on one image. The same Idempotency-Key goes with every try: where an
        /// answer was made and lost on its way, the gateway gives it again and records no second
        /// prediction.
        /// </summary>
        /// <param name="project">The project's id.</param>
        /// <param name="image">The bytes of a JPEG, PNG, BMP, TIFF or WebP file.</param>
        /// <param name="imageId">Comes back in the answer and is kept with it.</param>
        /// <param name="deadline">From now on, for all tries together.</param>
        public async Task<Decision> DecideAsync(
            string project, byte[] image, string imageId, TimeSpan deadline)
        {
            string key = Guid.NewGuid().ToString();
            string problem = "the deadline is too short";
            var clock = Stopwatch.StartNew();
            for (TimeSpan left = deadline; left > Network; left = deadline - clock.Elapsed)
            {
                TimeSpan pause = Pause;
                // The gateway does not begin with what would come too late.
                int milliseconds = Math.Max(1, (int)(left - Network).TotalMilliseconds);
                string path = $"v1/projects/{project}/predict?deadline_ms={milliseconds}";
                using (var request = new HttpRequestMessage(HttpMethod.Post, path))
                using (var cancel = new CancellationTokenSource(left))
                {
                    request.Content = new ByteArrayContent(image);
                    request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/octet-stream");
                    request.Headers.Add("Idempotency-Key", key);
                    request.Headers.Add("Image-Id", imageId);
                    try
                    {
                        using (HttpResponseMessage answer = await http.SendAsync(request, cancel.Token).ConfigureAwait(false))
                        {
                            string body = await answer.Content.ReadAsStringAsync(cancel.Token).ConfigureAwait(false);
                            if (answer.IsSuccessStatusCode)
                            {
                                return ReadDecision(body);
                            }
                            problem = Describe(answer.StatusCode, body);
                            if (!WorthAnotherTry(answer.StatusCode))
                            {
                                break;
                            }
                            pause = answer.Headers.RetryAfter?.Delta ?? Pause;
                        }
                    }
                    catch (HttpRequestException error)
                    {
                        problem = error.Message;
                    }
                    catch (OperationCanceledException)
                    {
                        problem = FormattableString.Invariant($"no answer within {deadline.TotalSeconds} s");
                    }
                }
                TimeSpan rest = deadline - clock.Elapsed;
                if (rest > TimeSpan.Zero)
                {
                    await Task.Delay(pause < rest ? pause : rest).ConfigureAwait(false);
                }
            }
            throw new ShotlineException(problem);
        }

        /// <summary>Returns the id of the project of that name; null where there is none.</summary>
        public async Task<string> FindProjectAsync(string name)
        {
            string path = "v1/projects?name=" + Uri.EscapeDataString(name);
            JsonElement found = await CallAsync(HttpMethod.Get, path).ConfigureAwait(false);
            foreach (JsonElement project in found.GetProperty("items").EnumerateArray())
            {
                return project.GetProperty("id").GetString();
            }
            return null;
        }

        /// <summary>Makes a project with a class for each label and returns its id.</summary>
        public async Task<string> MakeProjectAsync(string name, IEnumerable<string> labels)
        {
            var classes = new List<Dictionary<string, string>>();
            foreach (string label in labels)
            {
                classes.Add(new Dictionary<string, string> { ["name"] = label });
            }
            var body = new Dictionary<string, object> { ["name"] = name, ["classes"] = classes };
            JsonElement made = await CallAsync(HttpMethod.Post, "v1/projects", body).ConfigureAwait(false);
            return made.GetProperty("id").GetString();
        }

        /// <summary>
        /// Uploads images of one class and returns a line for each that was rejected. A request is
        /// sent again where the connection broke: an image that is there already is a duplicate.
        /// </summary>
        public async Task<List<string>> UploadAsync(string project, string label, IEnumerable<string> paths)
        {
            var rejected = new List<string>();
            foreach (List<string> batch in Batches(paths))
            {
                JsonElement answer;
                try
                {
                    answer = await UploadBatchAsync(project, label, batch).ConfigureAwait(false);
                }
                catch (ShotlineException error) when (error.Problem.ValueKind == JsonValueKind.Object && error.Problem.TryGetProperty("results", out _))
                {
                    answer = error.Problem; // none of these images can be used; others may be
                }
                catch (ShotlineException error) when (batch.Count == 1 && IsOfTheImage(error.Status))
                {
                    rejected.Add($"{Path.GetFileName(batch[0])}: {error.Message}");
                    continue;
                }
                foreach (JsonElement verdict in answer.GetProperty("results").EnumerateArray())
                {
                    if (verdict.GetProperty("verdict").GetString() == "rejected")
                    {
                        rejected.Add($"{verdict.GetProperty("file").GetString()}: {verdict.GetProperty("detail").GetString()}");
                    }
                }
            }
            return rejected;
        }

        /// <summary>Starts a tuning and returns its id.</summary>
        public async Task<string> StartTuningAsync(string project)
        {
            var body = new Dictionary<string, object> { ["seed"] = 1 };
            JsonElement tuning = await CallAsync(HttpMethod.Post, $"v1/projects/{project}/tunings", body).ConfigureAwait(false);
            return tuning.GetProperty("id").GetString();
        }

        /// <summary>Waits for the end of a tuning and returns the id and the number of its version.</summary>
        public async Task<(string Model, int Version)> WaitForVersionAsync(string tuning, Action<string> progress)
        {
            while (true)
            {
                JsonElement now = await CallAgainAsync(() => CallAsync(HttpMethod.Get, $"v1/tunings/{tuning}")).ConfigureAwait(false);
                string state = now.GetProperty("state").GetString();
                switch (state)
                {
                    case "succeeded":
                        JsonElement made = now.GetProperty("model");
                        return (made.GetProperty("id").GetString(), made.GetProperty("version").GetInt32());
                    case "failed":
                        throw new ShotlineException(now.GetProperty("failure").GetProperty("problem").GetString());
                    case "cancelled":
                        throw new ShotlineException("The tuning was cancelled.");
                }
                JsonElement done = now.GetProperty("progress");
                progress(done.ValueKind == JsonValueKind.Null
                    ? state
                    : $"{done.GetProperty("phase").GetString()}: {done.GetProperty("done").GetInt32()} of {done.GetProperty("total").GetInt32()}");
                await Task.Delay(TimeSpan.FromSeconds(1)).ConfigureAwait(false);
            }
        }

        /// <summary>Returns the macro accuracy of a version, measured on what did not train it.</summary>
        public async Task<double> AccuracyAsync(string model)
        {
            JsonElement found = await CallAsync(HttpMethod.Get, $"v1/models/{model}").ConfigureAwait(false);
            return found.GetProperty("accuracy").GetProperty("macro").GetProperty("value").GetDouble();
        }

        /// <summary>Puts a version into production.</summary>
        public Task PromoteAsync(string project, int version)
        {
            var body = new Dictionary<string, object> { ["version"] = version };
            return CallAsync(HttpMethod.Put, $"v1/projects/{project}/aliases/production", body);
        }

        // Cuts what is to be sent into requests of so many files and, a large file apart, bytes.
        private static IEnumerable<List<string>> Batches(IEnumerable<string> paths)
        {
            var batch = new List<string>();
            long bytes = 0;
            foreach (string path in paths)
            {
                long more = new FileInfo(path).Length;
                if (batch.Count > 0 && (batch.Count == FilesInARequest || bytes + more > BytesInARequest))
                {
                    yield return batch;
                    batch = new List<string>();
                    bytes = 0;
                }
                batch.Add(path);
                bytes += more;
            }
            if (batch.Count > 0)
            {
                yield return batch;
            }
        }

        private Task<JsonElement> UploadBatchAsync(string project, string label, List<string> paths)
        {
            return CallAgainAsync(() =>
            {
                var form = new MultipartFormDataContent();
                form.Add(new StringContent(label, Encoding.UTF8), "label");
                foreach (string path in paths)
                {
                    form.Add(new ByteArrayContent(File.ReadAllBytes(path)), "files", Path.GetFileName(path));
                }
                return CallAsync(HttpMethod.Post, $"v1/projects/{project}/images", form, UploadPatience);
            });
        }

        // For requests that may be sent twice.
        private static async Task<JsonElement> CallAgainAsync(Func<Task<JsonElement>> call)
        {
            for (int attempt = 1; ; attempt++)
            {
                try
                {
                    return await call().ConfigureAwait(false);
                }
                catch (Exception error) when (attempt < Tries && IsAway(error))
                {
                    // Below.
                }
                await Task.Delay(TimeSpan.FromSeconds(1 << attempt)).ConfigureAwait(false);
            }
        }

        private static bool IsAway(Exception error)
        {
            return error is HttpRequestException
                || (error is ShotlineException said && (said.Status == 0 || said.Status == 502 || said.Status == 503 || said.Status == 504));
        }

        // What a request with one image is refused with because of that image.
        private static bool IsOfTheImage(int status)
        {
            return status == 409 || status == 413 || status == 422;
        }

        private Task<JsonElement> CallAsync(HttpMethod method, string path, Dictionary<string, object> body)
        {
            string json = JsonSerializer.Serialize(body);
            return CallAsync(method, path, new StringContent(json, Encoding.UTF8, "application/json"), Patience);
        }

        private Task<JsonElement> CallAsync(HttpMethod method, string path)
        {
            return CallAsync(method, path, null, Patience);
        }

        private async Task<JsonElement> CallAsync(HttpMethod method, string path, HttpContent content, TimeSpan patience)
        {
            using (var request = new HttpRequestMessage(method, path) { Content = content })
            using (var cancel = new CancellationTokenSource(patience))
            {
                try
                {
                    using (HttpResponseMessage answer = await http.SendAsync(request, cancel.Token).ConfigureAwait(false))
                    {
                        string body = await answer.Content.ReadAsStringAsync(cancel.Token).ConfigureAwait(false);
                        if (!answer.IsSuccessStatusCode)
                        {
                            throw new ShotlineException(Describe(answer.StatusCode, body), (int)answer.StatusCode, Read(body));
                        }
                        return Read(body);
                    }
                }
                catch (OperationCanceledException)
                {
                    throw new ShotlineException(FormattableString.Invariant($"no answer within {patience.TotalSeconds} s"));
                }
            }
        }

        // An empty object where the body is no JSON, as that of a proxy's error may be.
        private static JsonElement Read(string body)
        {
            try
            {
                using (JsonDocument document = JsonDocument.Parse(body))
                {
                    return document.RootElement.ValueKind == JsonValueKind.Object ? document.RootElement.Clone() : Nothing;
                }
            }
            catch (JsonException)
            {
                return Nothing;
            }
        }

        private static Decision ReadDecision(string body)
        {
            JsonElement answer = Read(body);
            return new Decision(
                answer.GetProperty("decision").GetString(),
                answer.GetProperty("reason").GetString(),
                answer.GetProperty("label").GetString(),
                answer.GetProperty("probability").GetDouble(),
                answer.GetProperty("model").GetProperty("version").GetInt32());
        }

        // Still at work on the same question; not available now; a proxy's own error.
        private static bool WorthAnotherTry(HttpStatusCode status)
        {
            int code = (int)status;
            return code == 409 || code == 502 || code == 503;
        }

        // An error is problem+json, unless a proxy made it.
        private static string Describe(HttpStatusCode status, string body)
        {
            JsonElement problem = Read(body);
            if (problem.TryGetProperty("detail", out JsonElement detail) && problem.TryGetProperty("fix", out JsonElement fix))
            {
                return $"{(int)status}: {detail} {fix}";
            }
            return $"{(int)status}: {(body.Length > 200 ? body.Substring(0, 200) : body)}";
        }
    }
}
